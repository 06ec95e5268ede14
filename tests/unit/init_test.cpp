// SPDX-License-Identifier: Apache-2.0
// Initialisers: their statistics, structure and errors.
#include <cmath>

#include <loom/autograd/ops.h>
#include <loom/nn/init.h>
#include <loom/nn/nn.h>

#include "tensor_test.h"

namespace {

using namespace loom;
namespace init = loom::nn::init;
using init::Fan;
using init::Nonlinearity;
using tensor_test::error_of;
using tensor_test::show;

double deviation(const Tensor& x) { return loom::std(x).item<double>(); }
double average(const Tensor& x) { return mean(x).item<double>(); }
bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance; }

}  // namespace

TEST_CASE("gains and fans are PyTorch's") {
  CHECK(init::calculate_gain(Nonlinearity::linear) == 1);
  CHECK(init::calculate_gain(Nonlinearity::tanh) == 5.0 / 3);
  CHECK(init::calculate_gain(Nonlinearity::relu) == std::sqrt(2.0));
  CHECK(init::calculate_gain(Nonlinearity::leaky_relu) == std::sqrt(2 / (1 + 1e-4)));
  CHECK(init::calculate_gain(Nonlinearity::leaky_relu, 0.5) == std::sqrt(1.6));
  CHECK(init::calculate_gain(Nonlinearity::selu) == 0.75);
  CHECK(init::fans(zeros({8, 4, 3, 5})).in == 60);
  CHECK(init::fans(zeros({8, 4, 3, 5})).out == 120);
  CHECK(error_of([] { init::xavier_normal_(zeros({3})); }) ==
        "init: fan in and fan out can not be computed for a tensor of shape [3]; at least 2 dimensions are needed");
}

TEST_CASE("distributions have their moments and bounds") {
  const Tensor x = empty({200, 100});
  init::uniform_(x, -2, 4);
  CHECK(near(average(x), 1, 0.05));
  CHECK(near(deviation(x), std::sqrt(3.0), 0.05));
  CHECK(x.min().item<double>() >= -2);
  CHECK(x.max().item<double>() < 4);
  init::normal_(x, 3, 0.5);
  CHECK(near(average(x), 3, 0.02));
  CHECK(near(deviation(x), 0.5, 0.02));
  init::trunc_normal_(x, 1, 2, 0, 3);
  CHECK(x.min().item<double>() >= 0);
  CHECK(x.max().item<double>() <= 3);
  CHECK(near(average(x), 1.3987, 0.03));  // of the truncated distribution
  CHECK(near(deviation(x), 0.8293, 0.03));
  init::trunc_normal_(x);
  CHECK(near(deviation(x), 0.8796, 0.02));
}

TEST_CASE("xavier and kaiming have the variance of their formula") {
  const Tensor x = empty({100, 25, 2, 4});  // fans 200 and 800
  init::xavier_uniform_(x, 2);
  CHECK(near(deviation(x), 2 * std::sqrt(2.0 / 1000), 0.002));
  CHECK(x.max().item<double>() <= 2 * std::sqrt(6.0 / 1000));
  init::xavier_normal_(x);
  CHECK(near(deviation(x), std::sqrt(2.0 / 1000), 0.001));
  init::kaiming_normal_(x, 0, Fan::out, Nonlinearity::relu);
  CHECK(near(deviation(x), std::sqrt(2.0 / 800), 0.001));
  init::kaiming_uniform_(x, std::sqrt(5.0));
  CHECK(near(deviation(x), 1 / std::sqrt(3.0 * 200), 0.001));
  CHECK(x.max().item<double>() <= 1 / std::sqrt(200.0));
}

TEST_CASE("orthogonal matrices, wide, tall and of kernels") {
  for (const Dims& shape : {Dims{5, 9}, Dims{9, 5}, Dims{4, 3, 2, 2}}) {
    const Tensor x = init::orthogonal_(empty(shape, f64), 3);
    const Tensor m = reshape(x, {shape[0], -1});
    const Tensor product = m.size(0) <= m.size(1) ? matmul(m, m.t()) : matmul(m.t(), m);
    CHECK(allclose(product, eye(product.size(0), f64) * 9.0, 1e-12, 1e-12));
  }
}

TEST_CASE("eye, dirac, constant and sparse") {
  CHECK(show(init::eye_(empty({2, 3}))) == "f32[2, 3] 1 0 0 0 1 0");
  const Tensor x = randn({2, 4, 5, 5}), kernel = init::dirac_(empty({4, 4, 3, 3}));
  CHECK(equal(conv2d(x, kernel, {}, {.padding = 1}), x));
  const Tensor grouped = init::dirac_(empty({4, 2, 3}), 2);
  CHECK(equal(conv1d(x.select(3, 0), grouped, {}, {.padding = 1, .groups = 2}), x.select(3, 0)));
  CHECK(show(init::constant_(empty({2}), 1.5)) == "f32[2] 1.5 1.5");
  const Tensor sparse = init::sparse_(empty({20, 30}), 0.3, 2);
  const Tensor zeros_per_column = (sparse == 0.0).to(f32).sum({0});
  CHECK(equal(zeros_per_column, full({30}, 6)));
}

TEST_CASE("initialisers change leaves without recording, and draw from the rank's generator") {
  const Parameter p(empty({4, 4}));
  manual_seed(5);
  init::kaiming_normal_(p);
  CHECK(p.is_leaf());
  CHECK(p.requires_grad());
  const std::string first = show(p);
  manual_seed(5);
  context().data_rank = 3;  // the same numbers on every rank
  CHECK(show(init::kaiming_normal_(p)) == first);
  context().data_rank = 0;
}

TEST_CASE("layers start as PyTorch's do") {
  const nn::Linear linear(100, 50);
  CHECK(near(deviation(linear.weight), 0.1 / std::sqrt(3.0), 0.003));
  CHECK(abs(linear.bias).max().item<double>() <= 0.1);
  const nn::Conv2d conv(4, 8, 5, {.groups = 2});
  CHECK(abs(conv.weight).max().item<double>() <= 1 / std::sqrt(50.0));
  CHECK(abs(conv.bias).max().item<double>() <= 1 / std::sqrt(50.0));
  const nn::Embedding embedding(50, 20, {.padding_idx = 3});
  CHECK(near(deviation(embedding.weight), 1, 0.1));
  CHECK(abs(embedding.weight[3]).max().item<double>() == 0);
  const nn::MultiheadAttention attention(16, 2);
  CHECK(abs(attention.in_proj_weight).max().item<double>() <= std::sqrt(6.0 / 64));
  CHECK(abs(attention.in_proj_bias).max().item<double>() == 0);
  CHECK(abs(attention.out_proj.bias).max().item<double>() == 0);
  const nn::BatchNorm2d norm(3);
  CHECK(show(norm.weight) + show(norm.bias) + show(norm.running_var) == "f32[3] 1 1 1f32[3] 0 0 0f32[3] 1 1 1");
}
