// SPDX-License-Identifier: Apache-2.0
#include "kernel_test.h"

using namespace kernel_test;

namespace {

struct Reference {
  std::vector<double> loss, lse, gradient;
};

// torch.nn.functional.cross_entropy(reduction="none") and its gradient, in double.
Reference reference(const View& logits, const std::vector<int64_t>& target, const View& g, const CrossEntropy& o) {
  const int64_t rows = logits.shape[0], classes = logits.shape[1];
  const auto weight = [&](int64_t c) { return o.weight.data != nullptr ? get(o.weight, c) : 1.0; };
  double weight_sum = 0;
  for (int64_t c = 0; c < classes; ++c) weight_sum += weight(c);
  Reference out;
  for (int64_t n = 0; n < rows; ++n) {
    const auto x = [&](int64_t c) { return get(logits, n * classes + c); };
    double sum = 0, smooth = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(x(c));
    const double lse = std::log(sum), share = o.label_smoothing / static_cast<double>(classes);
    for (int64_t c = 0; c < classes; ++c) smooth += weight(c) * (lse - x(c));
    const int64_t t = target[static_cast<size_t>(n)];
    const bool ignored = t == o.ignore_index;
    out.lse.push_back(lse);
    out.loss.push_back(ignored ? 0 : (1 - o.label_smoothing) * weight(t) * (lse - x(t)) + share * smooth);
    for (int64_t c = 0; c < classes; ++c) {
      const double p = std::exp(x(c) - lse);
      const double plain = ignored ? 0 : weight(t) * (p - (c == t)), even = weight_sum * p - weight(c);
      out.gradient.push_back(ignored ? 0 : get(g, n) * ((1 - o.label_smoothing) * plain + share * even));
    }
  }
  return out;
}

DType statistics_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

void check_case(DType t, Layout layout, int64_t classes, const CrossEntropy& options) {
  CAPTURE(to_string(t));
  CAPTURE(classes);
  const std::vector<int64_t> classes_of = {0, classes - 1, options.ignore_index, classes / 2, 0};
  const Array logits = random(t, {5, classes}, layout, -4, 4), g = random(t, {5}, layout), target = list(classes_of);
  const Array loss(t, {5}, layout), lse(statistics_dtype(t), {5}), dlogits(t, {5, classes}, layout);
  cpu_accelerator().cross_entropy(loss, lse, logits, target, options);
  cpu_accelerator().cross_entropy_grad(dlogits, g, lse, logits, target, options);
  const Reference expected = reference(logits, classes_of, g, options);
  const double eps = epsilon(t) * 8, root = std::sqrt(static_cast<double>(classes));
  check_close(loss, expected.loss, eps * root);
  check_close(lse, expected.lse, epsilon(statistics_dtype(t)) * 8 * root);
  check_close(dlogits, expected.gradient, eps * root);
}

}  // namespace

TEST_CASE("cross_entropy: weights, smoothing, ignored rows, all dtypes and layouts") {
  for (const DType t : floating)
    for (const Layout layout : layouts)
      for (const int64_t classes : {1, 2, 10, 33, 64, 1200})
        for (const double smoothing : {0.0, 0.1, 1.0})
          for (const bool weighted : {false, true})
            for (const int64_t ignore_index : {-100, 1000000}) {
              const Array weight = random(statistics_dtype(t), {classes}, Layout::dense, 0.1, 2);
              check_case(t, layout, classes,
                         {.weight = weighted ? weight.view : without(),
                          .ignore_index = ignore_index,
                          .label_smoothing = smoothing});
            }
}

TEST_CASE("cross_entropy: a gradient repeated by stride 0, an ignored class within range") {
  const Array logits = random(DType::f32, {3, 4}), one = array(DType::f32, {1}, {0.5}), target = list({2, 1, 3});
  View g = one.view;
  g.shape[0] = 3;
  g.strides[0] = 0;
  const CrossEntropy options{.ignore_index = 1};
  const Array loss(DType::f32, {3}), lse(DType::f32, {3}), dlogits(DType::f32, {3, 4});
  cpu_accelerator().cross_entropy(loss, lse, logits, target, options);
  cpu_accelerator().cross_entropy_grad(dlogits, g, lse, logits, target, options);
  const Reference expected = reference(logits, {2, 1, 3}, g, options);
  check_close(loss, expected.loss, 1e-6);
  check_close(dlogits, expected.gradient, 1e-6);
  CHECK(get(loss, 1) == 0);
}

TEST_CASE("cross_entropy: large logits stay finite") {
  const Array logits = array(DType::f32, {1, 3}, {1e4, -1e4, 9.9e3}), target = list({2}),
              g = array(DType::f32, {1}, {1});
  const Array loss(DType::f32, {1}), lse(DType::f32, {1}), dlogits(DType::f32, {1, 3});
  cpu_accelerator().cross_entropy(loss, lse, logits, target, {});
  cpu_accelerator().cross_entropy_grad(dlogits, g, lse, logits, target, {});
  CHECK(get(loss, 0) == doctest::Approx(100));
  check_close(dlogits, {1, 0, -1}, 1e-6);
}

TEST_CASE("cross_entropy: long rows with large logits, infinities and NaN keep them to themselves") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (const DType t : {DType::f32, DType::f64, DType::bf16})
    for (const int64_t n : {33, 100, 1100}) {
      CAPTURE(n);
      const Array logits = random(t, {6, n}), target = list({0, 1, 2, 0, 4, n - 1}), loss(t, {6});
      const Array lse(statistics_dtype(t), {6});
      set(logits, 1 * n + n / 2, std::numeric_limits<double>::quiet_NaN());
      for (int64_t c = 1; c < n; ++c) set(logits, 3 * n + c, -inf);  // all of it is the target's
      for (int64_t c = 0; c < n; ++c) set(logits, 4 * n + c, c == 4 ? -1e4 : 1e4);
      set(logits, 5 * n + n - 1, 1e4);
      cpu_accelerator().cross_entropy(loss, lse, logits, target, {});
      CHECK(std::isnan(get(loss, 1)));
      CHECK(get(loss, 3) == 0);
      CHECK(get(loss, 4) == doctest::Approx(2e4).epsilon(0.01));
      CHECK(get(loss, 5) == 0);
      for (const int64_t r : {0, 2}) {
        double sum = 0;
        for (int64_t c = 0; c < n; ++c) sum += std::exp(get(logits, r * n + c));
        CHECK(get(lse, r) == doctest::Approx(std::log(sum)).epsilon(1e-6));
      }
    }
}

TEST_CASE("cross_entropy: a gradient that has overflowed is infinite where the target is not, as torch's") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  for (const int64_t n : {5, 100}) {
    CAPTURE(n);
    const Array logits = random(DType::f32, {1, n}), target = list({1}), g = array(DType::f32, {1}, {inf});
    const Array loss(DType::f32, {1}), lse(DType::f32, {1}), dlogits(DType::f32, {1, n});
    cpu_accelerator().cross_entropy(loss, lse, logits, target, {});
    cpu_accelerator().cross_entropy_grad(dlogits, g, lse, logits, target, {});
    for (int64_t c = 0; c < n; ++c) CHECK((c == 1 ? std::isnan(get(dlogits, c)) : get(dlogits, c) == inf));
  }
}

TEST_CASE("cross_entropy: no rows") {
  const Array logits(DType::f32, {0, 4}), target = list({}), loss(DType::f32, {0}), lse(DType::f32, {0});
  cpu_accelerator().cross_entropy(loss, lse, logits, target, {});
  cpu_accelerator().cross_entropy_grad(logits, loss, lse, logits, target, {});
}

TEST_CASE("cross_entropy: targets out of range") {
  const Array logits = random(DType::f32, {5, 10}), loss(DType::f32, {5}), lse(DType::f32, {5});
  const Array high = list({0, 1, 2, 12, 99}), low = list({0, -1, 2, 3, 4});
  const char* const text = "cross_entropy: target 12 at row 3 is out of range for 10 classes (ignore_index is -100)";
  CHECK_THROWS_WITH_AS(cpu_accelerator().cross_entropy(loss, lse, logits, high, {}), text, Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().cross_entropy_grad(logits, loss, lse, logits, high, {}), text, Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().cross_entropy(loss, lse, logits, low, {.ignore_index = 99}),
                       "cross_entropy: target -1 at row 1 is out of range for 10 classes (ignore_index is 99)", Error);
  const Array integers(DType::i32, {5, 10});
  CHECK_THROWS_WITH_AS(cpu_accelerator().cross_entropy(loss, lse, integers, low, {}),
                       "cross_entropy: expects a floating dtype, got i32", Error);
}
