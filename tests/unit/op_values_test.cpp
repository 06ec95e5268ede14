// SPDX-License-Identifier: Apache-2.0
// What the op sweep cannot see: results against naive loops and worked examples, and side effects.
#include <cmath>
#include <functional>

#include <doctest/doctest.h>

#include <loom/accelerators/random.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

struct Reproducible {
  Reproducible() { manual_seed(17); }
};

bool near(const Tensor& a, const Tensor& b, double tolerance = 1e-12) { return allclose(a, b, tolerance, tolerance); }

// Cross entropy of one row as its definition reads.
double row_loss(const Tensor& x, int64_t row, int64_t target, const std::vector<double>& w, double smoothing) {
  const auto v = x[row].to_vector<double>();
  double total = 0;
  for (const double e : v) total += std::exp(e);
  double all = 0;
  for (size_t c = 0; c < v.size(); ++c) all -= w[c] * std::log(std::exp(v[c]) / total);
  const auto t = static_cast<size_t>(target);
  return -(1 - smoothing) * w[t] * std::log(std::exp(v[t]) / total) + smoothing / static_cast<double>(v.size()) * all;
}

}  // namespace

TEST_CASE_FIXTURE(Reproducible, "cross_entropy of class indices") {
  const Tensor x = randn({4, 3}, f64), target = tensor({2, 0, 1, 2});
  const std::vector<double> w{0.5, 2.0, 1.5}, plain{1, 1, 1};
  const Tensor weight = from_vector(w, {3});
  const auto row = [&](int64_t i, const auto& weights, double s) {
    return row_loss(x, i, target[i].item<int64_t>(), weights, s);
  };
  CHECK(cross_entropy(x, target).item<double>() ==
        doctest::Approx((row(0, plain, 0) + row(1, plain, 0) + row(2, plain, 0) + row(3, plain, 0)) / 4));
  CHECK(cross_entropy(x, target, {.weight = weight}).item<double>() ==
        doctest::Approx((row(0, w, 0) + row(1, w, 0) + row(2, w, 0) + row(3, w, 0)) / (1.5 + 0.5 + 2.0 + 1.5)));
  const CrossEntropyOptions all{.weight = weight, .ignore_index = 2, .label_smoothing = 0.3};
  CHECK(cross_entropy(x, target, all).item<double>() ==
        doctest::Approx((row(1, w, 0.3) + row(2, w, 0.3)) / (0.5 + 2.0)));
  const Tensor none = cross_entropy(x, target, {.ignore_index = 0, .reduction = Reduction::none});
  CHECK(none[1].item<double>() == 0);
  CHECK(none[3].item<double>() == doctest::Approx(row(3, plain, 0)));
  CHECK(std::isnan(cross_entropy(x, full({4}, -100, i64)).item<double>()));  // as torch: 0 / 0
  CHECK(cross_entropy(x, full({4}, -100, i64), {.reduction = Reduction::sum}).item<double>() == 0);
}

TEST_CASE_FIXTURE(Reproducible, "cross_entropy of other shapes and of probabilities") {
  const Tensor x = randn({2, 3, 4}, f64), target = randint(0, 3, {2, 4});
  const Tensor rows = x.transpose(1, 2).reshape({8, 3});
  CHECK(near(cross_entropy(x, target), cross_entropy(rows, target.reshape({8}))));
  CHECK(near(cross_entropy(x, target), nll_loss(log_softmax(x, 1), target)));
  const Tensor exact = one_hot(target, 3).transpose(1, 2).to(f64);
  CHECK(near(cross_entropy(x, target), cross_entropy(x, exact)));
  CHECK(near(cross_entropy(x, target, {.label_smoothing = 0.2}), cross_entropy(x, exact, {.label_smoothing = 0.2})));
  CHECK(near(cross_entropy(rows[0], target[0][0]), cross_entropy(rows.slice(0, 0, 1), target[0].slice(0, 0, 1))));
}

TEST_CASE("binary cross entropy at the ends") {
  Tensor x = tensor({0.0, 1.0, 0.0, 1.0}, f64);
  x.requires_grad_();
  const Tensor target = tensor({0.0, 1.0, 1.0, 0.0}, f64);
  const Tensor loss = binary_cross_entropy(x, target, {}, Reduction::none);
  CHECK(near(loss, tensor({0.0, 0.0, 100.0, 100.0}, f64)));
  CHECK(all(isfinite(grad(sum(loss), x))).item<bool>());
  const Tensor logits = tensor({800.0, -800.0, 0.0}, f64), label = tensor({1.0, 1.0, 0.5}, f64);
  CHECK(near(binary_cross_entropy_with_logits(logits, label, {}, Reduction::none),
             tensor({0.0, 800.0, std::log(2.0)}, f64)));
}

TEST_CASE("gradients where a function is flat or overflows, as PyTorch's") {
  Tensor x = tensor({100.0, -1.0, 0.0});
  x.requires_grad_();
  const auto second = [&](const Tensor& y) { return grad(sum(grad(sum(y), x, {}, {.create_graph = true})), x); };
  for (const Tensor& y : {elu(x), selu(x), celu(x, 2.0)}) {
    const Tensor h = second(y);
    CHECK(h[0].item<float>() == 0);
    CHECK(std::isfinite(h[1].item<float>()));
  }
  Tensor flat = ones({2, 3});
  flat.requires_grad_();
  CHECK(near(grad(sum(loom::std(flat, {1})), flat), zeros({2, 3})));
  Tensor a = tensor({0.0, 0.0, 2.0});
  a.requires_grad_();
  CHECK(near(grad(sum(xlogy(a, tensor({0.0, 1.0, 1.0}))), a), zeros({3})));
  Tensor nan = full({1}, NAN);
  nan.requires_grad_();
  for (const Tensor& y : {threshold(nan, 0, 5), softshrink(nan), hardshrink(nan)})
    CHECK(grad(sum(y), nan).item<float>() == 1);
}

TEST_CASE("values and gradients at edges and of NaN, as PyTorch's") {
  const double inf = INFINITY, nan = NAN;
  const auto slopes = [](const std::vector<double>& at, const std::function<Tensor(const Tensor&)>& f) {
    const Tensor x = from_vector(at, {std::ssize(at)}).requires_grad_();
    return grad(sum(f(x)), x).to_vector<double>();
  };
  using List = std::vector<double>;
  const List at = {nan, -1, 1, 0, 2, -2, inf, -inf};
  CHECK(slopes(at, [](const Tensor& x) { return clamp(x, -1, 1); }) == List{0, 0, 0, 1, 0, 0, 0, 0});
  CHECK(slopes(at, [](const Tensor& x) { return clamp(x, -1); }) == List{0, 0, 1, 1, 1, 0, 1, 0});
  CHECK(slopes(at, [=](const Tensor& x) { return clamp(x, -inf, 1); }) == List{0, 1, 0, 1, 0, 1, 0, 1});
  CHECK(slopes(at, [](const Tensor& x) { return relu(x); }) == List{1, 0, 1, 0, 1, 0, 1, 0});
  CHECK(slopes(at, [](const Tensor& x) { return sign(x); }) == List(8, 0));
  CHECK(slopes(at, [](const Tensor& x) { return abs(x); }) == List{0, -1, 1, 0, 1, -1, 1, -1});
  CHECK(sign(tensor({nan, -0.0, -3.0, inf}, f64)).to_vector<double>() == List{0, 0, -1, 1});
  CHECK(slopes({-3, 3, -inf, inf}, [](const Tensor& x) { return hardswish(x); }) == List{0, 1, 0, 1});

  const auto both = [](const List& left, const List& right, const auto& f) {
    const Tensor a = from_vector(left, {std::ssize(left)}).requires_grad_();
    const Tensor b = from_vector(right, {std::ssize(right)}).requires_grad_();
    const auto g = grad(std::vector<Tensor>{sum(f(a, b))}, std::vector<Tensor>{a, b});
    return std::pair(g[0].to_vector<double>(), g[1].to_vector<double>());
  };
  const List a = {nan, nan, 1, 1, inf, 2, 0}, b = {1, nan, nan, 1, inf, 1, 1};
  CHECK(both(a, b, [](const Tensor& x, const Tensor& y) { return maximum(x, y); }) ==
        std::pair(List{1, 1, 1, 0.5, 0.5, 1, 0}, List{1, 1, 1, 0.5, 0.5, 0, 1}));
  CHECK(both(a, b, [](const Tensor& x, const Tensor& y) { return minimum(x, y); }) ==
        std::pair(List{1, 1, 1, 0.5, 0.5, 0, 1}, List{1, 1, 1, 0.5, 0.5, 1, 0}));
  CHECK(both({0, 0, 0}, {0, -0.0, 1}, [](const Tensor& x, const Tensor& y) { return atan2(x, y); }).first ==
        List{0, 0, 1});
  CHECK(both({0, 0, 0}, {0, -0.0, 1}, [](const Tensor& x, const Tensor& y) { return atan2(x, y); }).second ==
        List{0, 0, 0});
}

TEST_CASE("second gradients of f16 where their terms overflow") {
  const Tensor x = tensor({300.0, -300.0, 30000.0, -40000.0}).to(f16).requires_grad_();
  for (const Tensor& y : {gelu(x), gelu_tanh(x), silu(x), hardswish(x), mish(x)}) {
    const Tensor slope = grad(sum(y), x, {}, {.create_graph = true});
    CHECK(near(slope.detach().to(f64), tensor({1.0, 0.0, 1.0, 0.0}, f64)));
    CHECK(near(grad(sum(slope), x).to(f64), zeros({4}, f64)));
  }
}

TEST_CASE_FIXTURE(Reproducible, "logsumexp of f16: the gradient does not see that the result is rounded") {
  const Tensor x = (rand({4, 5}) * 5.0 + 900.0).to(f16).requires_grad_();
  const Tensor g = grad(sum(logsumexp(x, {1})), x).to(f64);
  CHECK(near(g, softmax(x.detach().to(f64), 1), 1e-3));
}

TEST_CASE_FIXTURE(Reproducible, "variance about a mean that f32 rounds to more than the deviations") {
  const Tensor x = (randn({5, 2000}, f64) * 1e-3 + 1e4).to(f32).requires_grad_();
  const Tensor exact = x.detach().to(f64).requires_grad_();
  for (const double correction : {0.0, 1.0}) {
    CHECK(allclose(var(x, {1}, correction).detach().to(f64), var(exact, {1}, correction).detach(), 1e-5, 0));
    CHECK(allclose(loom::std(x, {}, correction).detach().to(f64), loom::std(exact, {}, correction).detach(), 1e-5, 0));
    CHECK(allclose(grad(sum(var(x, {1}, correction)), x).to(f64), grad(sum(var(exact, {1}, correction)), exact), 1e-3,
                   1e-9));
  }
}

TEST_CASE("losses piece by piece") {
  const Tensor x = tensor({0.0, 0.5, 3.0}, f64), zero = zeros({3}, f64);
  CHECK(near(smooth_l1_loss(x, zero, Reduction::none, 2), tensor({0.0, 0.0625, 2.0}, f64)));
  CHECK(near(smooth_l1_loss(x, zero, Reduction::none, 0), x));
  CHECK(near(huber_loss(x, zero, Reduction::none, 2), tensor({0.0, 0.125, 4.0}, f64)));
  CHECK(mse_loss(x, zero).item<double>() == doctest::Approx(9.25 / 3));
  const Tensor p = tensor({{0.0, 1.0}, {0.5, 0.5}}, f64), q = log(tensor({{0.5, 0.5}, {0.25, 0.75}}, f64));
  const double second = 0.5 * std::log(0.5 / 0.25) + 0.5 * std::log(0.5 / 0.75);
  CHECK(kl_div(q, p, KlReduction::sum).item<double>() == doctest::Approx(std::log(2.0) + second));
  CHECK(kl_div(q, p, KlReduction::batchmean).item<double>() == doctest::Approx((std::log(2.0) + second) / 2));
  CHECK(kl_div(q, p).item<double>() == doctest::Approx((std::log(2.0) + second) / 4));
}

TEST_CASE_FIXTURE(Reproducible, "conv2d against loops, conv_transpose2d against its definition") {
  const Tensor x = randn({2, 4, 5, 6}, f64), w = randn({6, 2, 3, 2}, f64), b = randn({6}, f64);
  const Tensor y = conv2d(x, w, b, {.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2});
  REQUIRE(y.shape() == Dims{2, 6, 3, 8});
  const Tensor padded = pad(x, {2, 2, 1, 1});
  const Tensor expected = zeros(y.shape(), f64);
  for (const int64_t o : {0, 2, 5})
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 8; ++j) {
        const Tensor window = padded.narrow(1, o / 3 * 2, 2).slice(2, 2 * i, 2 * i + 3).slice(3, j, j + 3, 2);
        const Tensor value = sum(window * w[o], {1, 2, 3}) + b[o];
        CHECK(near(y.select(1, o).select(1, i).select(1, j), value));
      }
  // <conv(x), y> = <x, conv_transpose(y)>
  const Tensor back = randn({2, 6, 3, 8}, f64);
  const Tensor v = conv2d(x, w, {}, {.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2});
  const Tensor t =
      conv_transpose2d(back, w, {}, {.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2});
  REQUIRE(t.shape() == x.shape());
  CHECK(near(sum(v * back), sum(x * t), 1e-10));
  CHECK(conv_transpose2d(back, w, {}, {.stride = 2, .output_padding = {1, 0}, .groups = 2}).shape() ==
        Dims{2, 4, 8, 16});
  // output_padding beyond the stride, below the dilation: each position adds a spread kernel.
  const Tensor wide_back =
      conv_transpose2d(x, w.narrow(0, 0, 4), {}, {.padding = {3, 0}, .output_padding = {1, 0}, .dilation = {2, 1}});
  REQUIRE(wide_back.shape() == Dims{2, 2, 5 - 1 - 6 + 4 + 1 + 1, 7});
  const Tensor sums = zeros({2, 2, 9 + 1, 7}, f64);
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t j = 0; j < 6; ++j)
      for (int64_t c = 0; c < 4; ++c)
        for (int64_t n = 0; n < 2; ++n) sums[n].slice(1, i, i + 5, 2).narrow(2, j, 2).add_(w[c] * x[n][c][i][j]);
  CHECK(near(wide_back, sums.narrow(2, 3, 4)));
}

TEST_CASE("pooling of known planes") {
  const Tensor x = arange(16, f64).reshape({1, 1, 4, 4});
  CHECK(equal(max_pool2d(x, 2).flatten(), tensor({5.0, 7.0, 13.0, 15.0}, f64)));
  CHECK(equal(max_pool2d_with_indices(x, 2).second.flatten(), tensor({5, 7, 13, 15})));
  CHECK(equal(avg_pool2d(x, 2).flatten(), tensor({2.5, 4.5, 10.5, 12.5}, f64)));
  CHECK(avg_pool2d(x, 3, {.stride = 3, .padding = 1}).flatten()[0].item<double>() == doctest::Approx(10.0 / 9));
  CHECK(avg_pool2d(x, 3, {.stride = 3, .padding = 1, .count_include_pad = false}).flatten()[0].item<double>() ==
        doctest::Approx(2.5));
  const Tensor line = arange(5, f64).reshape({1, 1, 1, 5});
  CHECK(near(adaptive_avg_pool2d(line, {1, 3}).flatten(), tensor({0.5, 2.0, 3.5}, f64)));  // [0, 2) [1, 4) [3, 5)
}

TEST_CASE_FIXTURE(Reproducible, "norms") {
  const Tensor x = randn({6, 5}, f64) * 3.0 + 100.0;
  const Tensor y = layer_norm(x, {5}, {}, {}, 0);
  CHECK(near(mean(y, {1}), zeros({6}, f64), 1e-10));
  CHECK(near(var(y, {1}, 0), ones({6}, f64), 1e-10));
  CHECK(near(rms_norm(x, {5}, {}, 0.5), x / sqrt(mean(square(x), {1}, true) + 0.5)));
  CHECK(near(rms_norm(x.to(f32), {5}), rms_norm(x.to(f32), {5}, {}, std::ldexp(1.0, -23)), 0));
}

TEST_CASE_FIXTURE(Reproducible, "batch_norm moves the running statistics with the unbiased variance") {
  const Tensor x = randn({5, 2, 3}, f64), mean_before = randn({2}, f64), var_before = rand({2}, f64) + 1.0;
  const Tensor running_mean = mean_before.clone(), running_var = var_before.clone();
  const Tensor y = batch_norm(x, running_mean, running_var, {}, {}, true, 0.3, 1e-5);
  CHECK(near(running_mean, mean_before * 0.7 + mean(x, {0, 2}) * 0.3));
  CHECK(near(running_var, var_before * 0.7 + var(x, {0, 2}) * 0.3));
  CHECK(near(mean(y, {0, 2}), zeros({2}, f64), 1e-10));
  const Tensor kept = running_mean.clone();
  const Tensor scale = rsqrt(running_var + 1e-5).reshape({1, 2, 1});
  CHECK(near(batch_norm(x, running_mean, running_var), (x - running_mean.reshape({1, 2, 1})) * scale));
  CHECK(equal(running_mean, kept));
}

TEST_CASE_FIXTURE(Reproducible, "dropout") {
  const Tensor x = ones({100, 100}, f32), y = dropout(x, 0.3);
  const auto kept = sum(y != 0.0).item<int64_t>();
  CHECK(std::abs(static_cast<double>(kept) - 7000) < 250);
  CHECK(allclose(y, (y != 0.0).to(f32) * (65536 / 45875.0), 1e-6));  // 0.3 rounded to 19661 * 2^-16
  CHECK(dropout(x, 0.3, false).is_same(x));
  const auto mask_of = [&](int rank) {
    manual_seed(3);
    context().data_rank = rank;
    Tensor mask = dropout(x, 0.5) != 0.0;
    context().data_rank = 0;
    return mask;
  };
  CHECK(equal(mask_of(0), mask_of(0)));
  CHECK(!equal(mask_of(0), mask_of(1)));
}

TEST_CASE("dropout rounds probabilities, but none to certainty; the mean stays") {
  CHECK(draw::values_kept(0) == 65536);
  CHECK(draw::values_kept(1) == 0);
  CHECK(draw::values_kept(0.25) == 49152);
  CHECK(draw::values_kept(0.1) == 65536 - 6554);
  CHECK(draw::values_kept(1e-9) == 65535);
  CHECK(draw::values_kept(1 - 1e-9) == 1);
  manual_seed(5);
  const Tensor x = ones({1 << 20}, f64);
  for (const double p : {1e-9, 0.1, 0.9, 0.9999}) {
    const double kept = draw::values_kept(p) / 65536.0, deviation = std::sqrt((1 - kept) / kept / (1 << 20));
    CHECK(std::abs(mean(dropout(x, p)).item<double>() - 1) < 4 * deviation);
  }
  CHECK(equal(dropout(x, 1), zeros({1 << 20}, f64)));
}

TEST_CASE_FIXTURE(Reproducible, "attention") {
  const Tensor q = randn({2, 3, 4}, f64), k = randn({2, 3, 4}, f64), v = randn({2, 3, 5}, f64);
  const Tensor y = scaled_dot_product_attention(q, k, v, {.is_causal = true});
  CHECK(near(y.select(1, 0), v.select(1, 0)));  // the first position sees itself alone
  CHECK(near(y, scaled_dot_product_attention(q, k, v, {.mask = tril(ones({3, 3}, boolean))})));
  CHECK(near(scaled_dot_product_attention(q, k, v), matmul(softmax(matmul(q, k.mT()) / 2.0, -1), v)));
  const Tensor blind = scaled_dot_product_attention(q, k, v, {.mask = zeros({3, 3}, boolean)});
  CHECK(equal(blind, zeros({2, 3, 5}, f64)));
}
