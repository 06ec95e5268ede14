// SPDX-License-Identifier: Apache-2.0
// Products, convolutions, pooling and softmax: shapes, layouts and refusals; the kernels have their own tests.
#include <cmath>

#include "tensor_test.h"

using namespace tensor_test;

namespace {

// Whole numbers that are small enough for exact sums in any order.
Tensor pattern(const Dims& shape, DType dtype = f32) {
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>((i * 7 + 3) % 11) - 5;
  return from_vector(values, shape, dtype);
}

// [.., M, K] times [.., K, N] with loops; batches of a and b are equal or those of b absent.
std::string product_by_loops(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), w = b.to_vector<double>();
  const auto m = static_cast<size_t>(a.size(-2)), k = static_cast<size_t>(a.size(-1)),
             n = static_cast<size_t>(b.size(-1));
  Dims shape = a.shape();
  shape.back() = b.size(-1);
  std::vector<double> y(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t row = i / n, batch = b.dim() > 2 ? row / m : 0;
    for (size_t j = 0; j < k; ++j) y[i] += x[row * k + j] * w[(batch * k + j) * n + i % n];
  }
  return show(from_vector(y, shape, a.dtype()));
}

}  // namespace

TEST_CASE("matmul: torch's shapes") {
  const Tensor v = tensor({1.0, 2.0, 3.0}), m = counting({2, 3});
  CHECK(show(raw::matmul(v, v)) == "f32[] 14");
  CHECK(show(raw::matmul(m, v)) == "f32[2] 8 26");
  CHECK(show(raw::matmul(v, raw::transpose(m, 0, 1))) == "f32[2] 8 26");
  CHECK(show(raw::matmul(m, raw::transpose(m, 0, 1))) == "f32[2, 2] 5 14 14 50");
  CHECK(raw::matmul(zeros({4, 2, 3}), v).shape() == Dims{4, 2});
  CHECK(raw::matmul(v, zeros({4, 3, 5})).shape() == Dims{4, 5});
  CHECK(raw::matmul(zeros({2, 1, 4, 3}), zeros({5, 3, 6})).shape() == Dims{2, 5, 4, 6});
}

TEST_CASE("matmul: values over batches, layouts and dtypes") {
  for (const DType t : {f64, f32, f16, bf16}) {
    const Tensor a = pattern({3, 4, 5}, t), b = pattern({3, 5, 2}, t), c = pattern({5, 2}, t);
    CHECK(show(raw::matmul(a, b)) == product_by_loops(a, b));
    CHECK(show(raw::matmul(a, c)) == product_by_loops(a, c));
    const Tensor turned = raw::transpose(pattern({3, 5, 4}, t), 1, 2);
    CHECK(show(raw::matmul(turned, b)) == product_by_loops(turned, b));
    CHECK(show(raw::matmul(turned, c)) == product_by_loops(turned, c));
    const Tensor wide = raw::slice(pattern({5, 6}, t), 1, 0, 6, 2);
    CHECK(show(raw::matmul(a, wide)) == product_by_loops(a, wide));
    const Tensor repeated = raw::expand(a, {2, 3, 4, 5});
    CHECK(show(raw::matmul(repeated, c)) == product_by_loops(repeated, c));
  }
}

TEST_CASE("matmul: nothing to sum over gives zeros") {
  CHECK(show(raw::matmul(zeros({2, 0}), zeros({0, 2}))) == "f32[2, 2] 0 0 0 0");
  CHECK(show(raw::matmul(zeros({0, 3}), zeros({3, 2}))) == "f32[0, 2]");
  CHECK(show(raw::matmul(zeros({2, 3, 0}), zeros({0, 1}))) == "f32[2, 3, 1] 0 0 0 0 0 0");
  CHECK(show(raw::linear(zeros({2, 0}), zeros({2, 0}), tensor({1.0, 2.0}))) == "f32[2, 2] 1 2 1 2");
}

TEST_CASE("matmul_into: f32 takes the product of 16-bit matrices, and no other dtype of another") {
  const Tensor y = ones({2, 2}), row = tensor({256.0, 1.0}, bf16).reshape({1, 2}), column = raw::transpose(row, 0, 1);
  raw::matmul_into(y, column, row, false);
  raw::matmul_into(y, column, row, true);
  CHECK(show(y) == "f32[2, 2] 131072 512 512 2");
  raw::matmul_into(y, tensor({128.0, 0.5}, f16).reshape({2, 1}), row.to(f16), true);
  CHECK(show(y) == "f32[2, 2] 163840 640 640 2.5");
  const auto differ = [](const Tensor& to, const Tensor& a, const Tensor& b) {
    return error_of([&] { raw::matmul_into(to, a, b, false); });
  };
  CHECK(differ(ones({2, 2}, f64), column, row) == "matmul: dtypes f64 and bf16 differ; convert one with .to(dtype)");
  CHECK(differ(ones({2, 2}, bf16), column.to(f32), row.to(f32)) ==
        "matmul: dtypes bf16 and f32 differ; convert one with .to(dtype)");
  CHECK(differ(y, column, row.to(f16)) == "matmul: dtypes bf16 and f16 differ; convert one with .to(dtype)");
}

TEST_CASE("matmul: what does not fit") {
  CHECK(
      error_of([] {
        raw::matmul(zeros({2, 3}), zeros({4, 5}));
      }) ==
      "matmul: shapes [2, 3] and [4, 5] do not fit: the last dimension of the first (3) must equal the second-to-last "
      "of the second (4)");
  CHECK(error_of([] {
          raw::matmul(zeros({2, 3}), zeros({4}));
        }) ==
        "matmul: shapes [2, 3] and [4] do not fit: the last dimension of the first (3) must equal the only one of the "
        "second (4)");
  CHECK(error_of([] {
          raw::matmul(zeros({2, 2, 3}), zeros({3, 3, 2}));
        }) == "matmul: batch: shapes [2] and [3] do not broadcast (dimension 0)");
  CHECK(error_of([] {
          raw::matmul(zeros({2, 3}), zeros({3, 2}, f64));
        }) == "matmul: dtypes f32 and f64 differ; convert one with .to(dtype)");
  CHECK(error_of([] {
          raw::matmul(zeros({2, 2}, i64), zeros({2, 2}, i64));
        }) == "matmul: expects a floating dtype, got i64");
  CHECK(error_of([] { raw::matmul(zeros({}), zeros({3})); }) ==
        "matmul: both operands need a dimension, got shapes [] and [3]");
}

TEST_CASE("linear: any leading dimensions") {
  const Tensor w = counting({2, 3}), b = tensor({10.0, 20.0});
  CHECK(show(raw::linear(tensor({1.0, 0.0, 2.0}), w, b)) == "f32[2] 14 33");
  CHECK(show(raw::linear(counting({1, 2, 3}), w, b)) == "f32[1, 2, 2] 15 34 24 70");
  CHECK(show(raw::linear(counting({2, 3}), w, {})) == "f32[2, 2] 5 14 14 50");
  CHECK(show(raw::linear(raw::transpose(counting({3, 2}), 0, 1), w, b)) == "f32[2, 2] 20 48 23 60");
  CHECK(raw::linear(zeros({0, 3}), w, b).shape() == Dims{0, 2});
  CHECK(error_of([&] {
          raw::linear(zeros({2, 4}), w, b);
        }) == "linear: the input of shape [2, 4] has 4 features, weight [2, 3] expects 3");
  CHECK(error_of([&] { raw::linear(zeros({2, 3}), w, zeros({3})); }) == "linear: bias must be [2], got shape [3]");
  CHECK(error_of([&] {
          raw::linear(zeros({2, 3}, f64), w, b);
        }) == "linear: dtypes f64 and f32 differ; convert one with .to(dtype)");
}

TEST_CASE("conv2d: shapes and values") {
  const Tensor x = counting({1, 1, 3, 3}), w = ones({1, 1, 2, 2});
  CHECK(show(raw::conv2d(x, w, {}, {})) == "f32[1, 1, 2, 2] 8 12 20 24");
  CHECK(show(raw::conv2d(x, w, tensor({1.0}), {.stride = {2, 2}, .padding = {1, 1}})) == "f32[1, 1, 2, 2] 1 4 10 25");
  CHECK(raw::conv2d_shape("conv2d", {2, 4, 8, 9}, {6, 2, 3, 3}, {.stride = {2, 1}, .dilation = {1, 2}, .groups = 2}) ==
        Dims{2, 6, 3, 5});
  CHECK(raw::conv2d(zeros({0, 1, 3, 3}), w, {}, {}).shape() == Dims{0, 1, 2, 2});
  const Tensor dy = ones({1, 1, 2, 2});
  CHECK(show(raw::conv2d_grad_input(dy, w, {1, 1, 3, 3}, {})) == "f32[1, 1, 3, 3] 1 2 1 2 4 2 1 2 1");
  CHECK(show(raw::conv2d_grad_weight(dy, x, {1, 1, 2, 2}, {})) == "f32[1, 1, 2, 2] 8 12 20 24");
  CHECK(show(raw::conv2d_grad_weight(zeros({0, 1, 2, 2}), zeros({0, 1, 3, 3}), {1, 1, 2, 2}, {})) ==
        "f32[1, 1, 2, 2] 0 0 0 0");
}

TEST_CASE("conv2d: what does not fit") {
  const auto error = [](const Dims& x, const Dims& w, const ConvGeometry& g) {
    return error_of([&] { raw::conv2d(zeros(x), zeros(w), {}, g); });
  };
  CHECK(error({3, 3}, {1, 1, 2, 2}, {}) == "conv2d: expects an input [N, C, H, W], got shape [3, 3]");
  CHECK(error({1, 3, 5, 5}, {8, 4, 3, 3}, {}) ==
        "conv2d: the input of shape [1, 3, 5, 5] has 3 channels, weight [8, 4, 3, 3] with 1 group expects 4");
  CHECK(error({1, 4, 5, 5}, {9, 2, 3, 3}, {.groups = 2}) == "conv2d: 9 output channels do not divide into 2 groups");
  CHECK(
      error({1, 1, 5, 2}, {1, 1, 3, 3}, {}) ==
      "conv2d: the kernel reaches over 3 positions, more than the padded input's 2 (width; input [1, 1, 5, 2], weight "
      "[1, 1, 3, 3], padding [0, 0], dilation [1, 1])");
  CHECK(error({1, 1, 5, 5}, {1, 1, 3, 3}, {.stride = {0, 1}}) == "conv2d: stride must be positive, got [0, 1]");
  CHECK(error({1, 1, 5, 5}, {1, 1, 3, 3}, {.padding = {0, -1}}) == "conv2d: padding must not be negative, got [0, -1]");
}

TEST_CASE("pooling: sizes by torch's rule") {
  const Tensor x = counting({1, 1, 4, 4});
  const PoolGeometry two{.kernel = {2, 2}, .stride = {2, 2}};
  const auto [y, index] = raw::max_pool2d(x, two, false);
  CHECK(show(y) == "f32[1, 1, 2, 2] 5 7 13 15");
  CHECK(show(index) == "i64[1, 1, 2, 2] 5 7 13 15");
  CHECK(show(raw::avg_pool2d(x, two, false)) == "f32[1, 1, 2, 2] 2.5 4.5 10.5 12.5");
  CHECK(show(raw::avg_pool2d_grad(ones({1, 1, 2, 2}), {1, 1, 4, 4}, two)).starts_with("f32[1, 1, 4, 4] 0.25 0.25"));
  const Tensor odd = zeros({1, 1, 5, 5});
  CHECK(raw::max_pool2d(odd, two, false).first.shape() == Dims{1, 1, 2, 2});
  CHECK(raw::max_pool2d(odd, two, true).first.shape() == Dims{1, 1, 3, 3});
  // The last window would start in the padding behind the input.
  const PoolGeometry padded{.kernel = {2, 2}, .stride = {3, 3}, .padding = {1, 1}};
  CHECK(raw::max_pool2d(zeros({1, 1, 2, 2}), padded, true).first.shape() == Dims{1, 1, 1, 1});
  CHECK(error_of([&] {
          raw::max_pool2d(x, {.kernel = {2, 2}, .padding = {2, 0}}, false);
        }) == "max_pool2d: padding 2 must be between 0 and half of the kernel's reach 2");
  CHECK(error_of([&] {
          raw::avg_pool2d(x, {.kernel = {5, 1}}, false);
        }) == "avg_pool2d: the kernel reaches over 5 positions, more than the padded input's 4 (height)");
  CHECK(error_of([&] {
          raw::avg_pool2d(zeros({4, 4}), two, false);
        }) == "avg_pool2d: expects an input [N, C, H, W], got shape [4, 4]");
}

TEST_CASE("softmax: along any dimension") {
  const Tensor x = zeros({2, 4});
  CHECK(show(raw::softmax(x, 0, false)) == "f32[2, 4] 0.5 0.5 0.5 0.5 0.5 0.5 0.5 0.5");
  CHECK(show(raw::softmax(raw::transpose(x, 0, 1), 0, false)) == "f32[4, 2] 0.25 0.25 0.25 0.25 0.25 0.25 0.25 0.25");
  CHECK(raw::softmax(tensor({0.0, 1.0}), 0, true).to_vector<double>()[0] ==
        doctest::Approx(-std::log(1 + std::exp(1))));
  CHECK(show(raw::softmax(full({}, 3), 0, false)) == "f32[] 1");
  CHECK(show(raw::softmax(zeros({0, 2}), 1, false)) == "f32[0, 2]");
  CHECK(show(raw::softmax_grad(tensor({1.0, 0.0}), tensor({0.5, 0.5}), 0, false)) == "f32[2] 0.25 -0.25");
  CHECK(error_of([] { raw::softmax(tensor({1}), 0, false); }) == "softmax: expects a floating dtype, got i64");
  CHECK(error_of([&] { raw::softmax(x, 2, true); }) ==
        "log_softmax: dimension 2 is out of range for a tensor of rank 2");
}
