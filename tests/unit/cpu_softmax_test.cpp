// SPDX-License-Identifier: Apache-2.0
#include "kernel_test.h"

using namespace kernel_test;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

// Calls f(first element, step) for every line along dim.
template <class F>
void for_each_line(const Dims& shape, int dim, const F& f) {
  int64_t inner = 1;
  for (int d = dim + 1; d < shape.size(); ++d) inner *= shape[d];
  const int64_t n = shape.empty() ? 1 : shape[dim];
  for (int64_t i = 0; i < shape.numel(); ++i)
    if (i / inner % n == 0) f(i, inner, n);
}

std::vector<double> softmax(const View& x, int dim, bool log) {
  std::vector<double> out = values(x);
  for_each_line(x.shape, dim, [&](int64_t first, int64_t step, int64_t n) {
    const auto at = [&](int64_t i) -> double& { return out[static_cast<size_t>(first + i * step)]; };
    double top = -inf;
    for (int64_t i = 0; i < n; ++i) top = std::max(top, at(i));
    long double wide = 0;  // of many doubles: adding them one by one costs more than what is checked
    for (int64_t i = 0; i < n; ++i) wide += std::exp(at(i) - top);
    const auto sum = static_cast<double>(wide);
    for (int64_t i = 0; i < n; ++i) at(i) = log ? at(i) - top - std::log(sum) : std::exp(at(i) - top) / sum;
  });
  return out;
}

std::vector<double> softmax_grad(const View& dy, const View& y, int dim, bool log) {
  std::vector<double> out = values(dy);
  for_each_line(y.shape, dim, [&](int64_t first, int64_t step, int64_t n) {
    double sum = 0;
    for (int64_t i = first; i < first + n * step; i += step) sum += get(dy, i) * (log ? 1 : get(y, i));
    for (int64_t i = first; i < first + n * step; i += step)
      out[static_cast<size_t>(i)] = log ? get(dy, i) - std::exp(get(y, i)) * sum : get(y, i) * (get(dy, i) - sum);
  });
  return out;
}

void check_softmax(DType t, const Dims& shape, int dim, Layout layout, double range) {
  CAPTURE(to_string(t));
  CAPTURE(to_string(shape));
  CAPTURE(dim);
  const double tolerance =
      8 * epsilon(t) * (t == DType::f32 || t == DType::f64 ? std::sqrt(static_cast<double>(shape.numel())) : 1);
  for (const bool log : {false, true}) {
    const Array x = random(t, shape, layout, -range, range), y(t, shape, layout);
    cpu_accelerator().softmax(y, x, dim, log);
    check_close(y, softmax(x, dim, log), tolerance);
    const Array dy = random(t, shape, layout), dx(t, shape, layout);
    cpu_accelerator().softmax_grad(dx, dy, y, dim, log);
    check_close(dx, softmax_grad(dy, y, dim, log), tolerance);
  }
}

}  // namespace

TEST_CASE("softmax: every dim, dtype and layout, with gradients") {
  for (const DType t : floating)
    for (const Layout layout : layouts) {
      for (const Dims& shape :
           {Dims{7}, Dims{1}, Dims{3, 33}, Dims{2, 1, 5}, Dims{4, 3, 70}, Dims{2, 3, 4, 5}, Dims{2, 1500}})
        for (int dim = 0; dim < shape.size(); ++dim)
          for (const double range : {1.0, 30.0}) check_softmax(t, shape, dim, layout, range);
      check_softmax(t, {}, 0, Layout::dense, 1);
    }
}

TEST_CASE("softmax: empty extents") {
  for (const Dims& shape : {Dims{0}, Dims{0, 4}, Dims{4, 0}}) {
    const Array x(DType::f32, shape), y(DType::f32, shape);
    for (int dim = 0; dim < shape.size(); ++dim) {
      cpu_accelerator().softmax(y, x, dim, false);
      cpu_accelerator().softmax_grad(y, x, x, dim, true);
    }
  }
}

TEST_CASE("softmax: large values, minus infinity, NaN") {
  for (const DType t : {DType::f32, DType::f64})
    for (const Dims& shape : {Dims{1, 4}, Dims{4, 1}})  // dim 1 of the one, dim 0 of the other
      for (const bool log : {false, true}) {
        const int dim = shape[0] == 1 ? 1 : 0;
        const auto run = [&](const std::vector<double>& v) {
          const Array x = array(t, shape, v), y(t, shape);
          cpu_accelerator().softmax(y, x, dim, log);
          return values(y);
        };
        const auto large = run({1e4, 1e4, -1e4, 1e4});
        CHECK(large[0] == doctest::Approx(log ? -std::log(3) : 1 / 3.0).epsilon(1e-6));
        CHECK(large[2] == doctest::Approx(log ? -2e4 - std::log(3) : 0).epsilon(1e-6));
        const auto masked = run({0, -inf, 0, -inf});
        CHECK(masked[0] == doctest::Approx(log ? -std::log(2) : 0.5).epsilon(1e-6));
        CHECK(masked[1] == (log ? -inf : 0));
        for (const double v : run({0, not_a_number, 1, 2})) CHECK(std::isnan(v));
        for (const double v : run({-inf, -inf, -inf, -inf})) CHECK(std::isnan(v));
      }
}

TEST_CASE("softmax: long rows with infinities and NaN keep them to themselves") {
  for (const DType t : floating)
    for (const int64_t n : {33, 64, 100, 1100}) {
      CAPTURE(n);
      const Array x = random(t, {7, n}), y(t, {7, n}), log_y(t, {7, n});
      for (int64_t j = 0; j < n; ++j) set(x, 3 * n + j, -inf);
      set(x, 1 * n + n / 2, not_a_number);
      set(x, 5 * n + n - 1, inf);
      set(x, 6 * n, -inf);
      set(x, 6 * n + n - 1, -1e4);
      cpu_accelerator().softmax(y, x, 1, false);
      cpu_accelerator().softmax(log_y, x, 1, true);
      for (const int64_t r : {1, 3, 5})  // a sum of infinities is NaN, but what is infinitely less is 0 of infinity
        for (int64_t j = 0; j < n; ++j) {
          const double v = get(y, r * n + j);
          CHECK((std::isnan(v) || (r == 5 && j < n - 1 && v == 0)));
          CHECK_FALSE(std::isfinite(get(log_y, r * n + j)));
        }
      const std::vector<double> expected = softmax(x, 1, false);
      for (const int64_t r : {0, 2, 4, 6})
        for (int64_t j = 0; j < n; ++j) {
          const double e = expected[static_cast<size_t>(r * n + j)];
          CHECK(std::abs(get(y, r * n + j) - e) <= 8 * epsilon(t) * e);
        }
      CHECK(get(y, 6 * n) == 0);
      CHECK(get(y, 6 * n + n - 1) == 0);
      CHECK(get(log_y, 6 * n) == -inf);
    }
}

TEST_CASE("softmax: small results are right to a few units in the last place") {
  constexpr int64_t n = 1000;
  const Array x(DType::f32, {1, n}), y(DType::f32, {1, n});
  for (int64_t j = 0; j < n; ++j) set(x, j, -0.0787 * static_cast<double>(j));
  cpu_accelerator().softmax(y, x, 1, false);
  const std::vector<double> expected = softmax(x, 1, false);
  for (int64_t j = 0; j < n; ++j) {
    const double e = expected[static_cast<size_t>(j)];
    CHECK(std::abs(get(y, j) - e) <= 4 * epsilon(DType::f32) * e);
  }
}

TEST_CASE("softmax: a row's bits do not depend on where it lies") {
  for (const int64_t n : {70, 250, 1030}) {
    const Array row = random(DType::f32, {1, n}, Layout::dense, -9, 9), x(DType::f32, {6, n}), one(DType::f32, {1, n}),
                all(DType::f32, {6, n});
    for (int64_t i = 0; i < 6 * n; ++i) set(x, i, get(row, i % n));
    cpu_accelerator().softmax(one, row, 1, false);
    cpu_accelerator().softmax(all, x, 1, false);
    for (int64_t i = 0; i < 6 * n; ++i) CHECK(get(all, i) == get(one, i % n));
  }
}

TEST_CASE("softmax: the same bits on any number of threads") {
  for (const int dim : {0, 1, 2}) {
    const Array x = random(DType::f32, {64, 40, 50}), one(DType::f32, {64, 40, 50}), three(DType::f32, {64, 40, 50});
    {
      const Threads scope(1);
      cpu_accelerator().softmax(one, x, dim, false);
    }
    const Threads scope(3);
    cpu_accelerator().softmax(three, x, dim, false);
    CHECK(values(one) == values(three));
  }
}

TEST_CASE("softmax: refuses integers") {
  const Array x(DType::i64, {2, 2});
  CHECK_THROWS_WITH_AS(cpu_accelerator().softmax(x, x, 0, false), "softmax: expects a floating dtype, got i64", Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().softmax(x, x, 0, true), "log_softmax: expects a floating dtype, got i64",
                       Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().softmax_grad(x, x, x, 0, false), "softmax: expects a floating dtype, got i64",
                       Error);
}
