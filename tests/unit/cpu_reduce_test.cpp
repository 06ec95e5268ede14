#include <doctest/doctest.h>

#include "array.h"

#include <loom/accelerators/threads.h>

using namespace loom;
using namespace loom::testing;

namespace {

double reduced(Reduce op, const std::vector<double>& values) {
  double sum = 0, product = 1, squares = 0, exponentials = 0;
  double high = -std::numeric_limits<double>::infinity(), low = -high;
  bool all = true, any = false;
  for (const double v : values) {
    sum += v;
    product *= v;
    squares += v * v;
    exponentials += std::exp(v);
    high = std::max(high, v);
    low = std::min(low, v);
    all = all && v != 0;
    any = any || v != 0;
  }
  switch (op) {
    case Reduce::sum:
      return sum;
    case Reduce::mean:
      return sum / static_cast<double>(values.size());
    case Reduce::prod:
      return product;
    case Reduce::max:
      return high;
    case Reduce::min:
      return low;
    case Reduce::all:
      return all;
    case Reduce::any:
      return any;
    case Reduce::sum_of_squares:
      return squares;
    case Reduce::logsumexp:
      return std::log(exponentials);
  }
  return 0;
}

constexpr Reduce all_ops[] = {Reduce::sum, Reduce::mean, Reduce::prod,           Reduce::max,      Reduce::min,
                              Reduce::all, Reduce::any,  Reduce::sum_of_squares, Reduce::logsumexp};

Dims without(Dims shape, unsigned dims) {
  for (int d = 0; d < shape.size(); ++d)
    if (dims >> d & 1) shape[d] = 1;
  return shape;
}

// The expected results, by gathering each output's elements.
std::vector<double> reference(Reduce op, const Array& x, const Dims& out) {
  std::vector<std::vector<double>> groups(static_cast<size_t>(out.numel()));
  for (int64_t i = 0; i < x.numel(); ++i) {
    int64_t rest = i, target = 0, step = 1;
    for (int d = out.size() - 1; d >= 0; --d) {
      const int64_t position = rest % x.view().shape[d];
      rest /= x.view().shape[d];
      if (out[d] != 1) target += position * step;
      step *= out[d];
    }
    groups[static_cast<size_t>(target)].push_back(x[i]);
  }
  std::vector<double> results;
  results.reserve(groups.size());
  for (const auto& group : groups) results.push_back(reduced(op, group));
  return results;
}

DType result_dtype(Reduce op, DType t) {
  if (op == Reduce::all || op == Reduce::any) return boolean;
  const bool widens = op == Reduce::sum || op == Reduce::prod || op == Reduce::sum_of_squares;
  return widens && is_integral(t) ? i64 : t;
}

void check_reduce(Reduce op, const Array& x, unsigned dims) {
  const DType t = x.view().dtype;
  if (!is_floating(t) && (op == Reduce::mean || op == Reduce::logsumexp)) return;
  const Dims out = without(x.view().shape, dims);
  Array y(result_dtype(op, t), out);
  cpu().reduce(op, y, x);
  const std::vector<double> expected = reference(op, x, out);
  for (int64_t i = 0; i < y.numel(); ++i) {
    const double e = expected[static_cast<size_t>(i)];
    const bool rounds_to_infinity = t == f16 && std::abs(e) > 65000;
    REQUIRE_MESSAGE((rounds_to_infinity || close(y[i], e, tolerance(t) * 4, 1e-5)), "op ", static_cast<int>(op), " ",
                    to_string(t), " ", to_string(x.view().shape), " dims ", dims, " at ", i, ": ", y[i], ", expected ",
                    e);
  }
}

// Small, so that products stay in range; some zeros.
double small(int64_t i) { return static_cast<double>((i * 31 + 7) % 11 - 5) / 4; }

}  // namespace

TEST_CASE("reduce: every op, dtype, choice of dims and layout") {
  for (const DType t : all_dtypes)
    for (const Dims& shape : {Dims{3, 5, 4}, Dims{1, 7, 9}, Dims{2, 1, 33}, Dims{5, 31, 2}})
      for (const Dims& strides : {row_major_strides(shape), Dims{1, shape[0], shape[0] * shape[1]},
                                  Dims{2 * shape[2], 4 * shape[0] * shape[2], 2}, Dims{0, shape[2], 1}}) {
        const Array x(t, shape, strides, small);
        for (unsigned dims = 0; dims < 8; ++dims)
          for (const Reduce op : all_ops) check_reduce(op, x, dims);
      }
}

TEST_CASE("reduce: rows and columns of many sizes") {
  for (const DType t : {f32, f64, bf16, i32})
    for (const int64_t rows : odd_sizes)
      for (const int64_t columns : {1, 7, 33, 600, 1025}) {
        const Array x(t, {rows, columns}, scrambled);
        for (const Reduce op : {Reduce::sum, Reduce::max, Reduce::sum_of_squares})
          for (const unsigned dims : {1u, 2u, 3u}) check_reduce(op, x, dims);
      }
}

TEST_CASE("reduce: across wide rows, and across many narrow ones that adjoin") {
  for (const DType t : {f32, f64, f16, bf16, i32})
    for (const Dims& shape : {Dims{67, 4100}, Dims{3, 2049}, Dims{1300, 3}, Dims{777, 63}, Dims{2, 64, 65}}) {
      const Array x(t, shape, small);
      for (const Reduce op : {Reduce::sum, Reduce::min, Reduce::sum_of_squares})
        for (const unsigned dims : {1u, 2u, 3u}) check_reduce(op, x, dims);
    }
}

TEST_CASE("reduce: across rows that no cache holds") {
  for (const Dims& shape : {Dims{1100, 1003}, Dims{9000, 121}, Dims{90'000, 13}}) {
    const Array x(f32, shape, small);
    for (const Reduce op : {Reduce::sum, Reduce::max}) check_reduce(op, x, 1u);
  }
}

TEST_CASE("reduce: long sums keep their digits, and do not depend on the number of threads") {
  const int64_t n = 3'000'000;
  const Array x(f32, {n}, [](int64_t i) { return 1.0 + static_cast<double>(i % 7) * 0.1; });
  double exact = 0;
  for (int64_t i = 0; i < n; ++i) exact += x[i];
  Array y(f32, {1}), columns(f32, {1, 30}), again(f32, {1, 30});
  View matrix = view_over(x.view().data, f32, {n / 30, 30});
  const int before = num_threads();
  std::vector<double> results;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    cpu().reduce(Reduce::sum, y, x);
    results.push_back(y[0]);
    CHECK(close(y[0], exact, 1e-7));
    cpu().reduce(Reduce::sum, threads == 1 ? columns : again, matrix);
  }
  set_num_threads(before);
  CHECK(results == std::vector<double>(3, results[0]));
  CHECK(columns.values() == again.values());
  CHECK(close(columns[0], exact / 30, 0.2));
}

TEST_CASE("reduce: NaN passes through max and min, wherever it stands") {
  for (const int64_t n : odd_sizes)
    for (const int64_t at : {int64_t{0}, n / 2, n - 1})
      for (const Reduce op : {Reduce::max, Reduce::min, Reduce::logsumexp, Reduce::sum}) {
        const auto value = [at](int64_t i) { return i == at ? std::numeric_limits<double>::quiet_NaN() : small(i); };
        const Array row(f32, {n}, value), columns(f32, {n, 9}, [&](int64_t i) { return value(i / 9); });
        Array y(f32, {1}), z(f32, {1, 9});
        cpu().reduce(op, y, row);
        cpu().reduce(op, z, columns);
        CHECK(std::isnan(y[0]));
        CHECK(std::isnan(z[8]));
      }
}

TEST_CASE("reduce: many short rows, of any length, also apart from each other") {
  for (const DType t : {f32, f64, f16, bf16, i32})
    for (int64_t n = 1; n <= 140; n += n < 20 ? 1 : 13) {
      const Array dense(t, {37, n}, small), apart(t, {37, n}, {n + 3, 1}, small);
      for (const Reduce op : {Reduce::sum, Reduce::max, Reduce::sum_of_squares}) {
        check_reduce(op, dense, 2);
        check_reduce(op, apart, 2);
      }
    }
}

TEST_CASE("reduce: over the dims around one that stays, runs of any length") {
  for (const DType t : {f32, f64, bf16})
    for (const int64_t n : {1, 7, 49, 196, 1025, 2100}) {
      const Array x(t, {11, 3, n}, small);
      for (const Reduce op : {Reduce::sum, Reduce::mean, Reduce::min, Reduce::sum_of_squares}) check_reduce(op, x, 5);
    }
}

TEST_CASE("reduce: a row has the same bits whichever rows stand beside it") {
  for (const int64_t n : {3, 16, 100, 300, 1000}) {
    const Array x(f32, {23, n}, scrambled);
    Array y(f32, {23, 1}), alone(f32, {1, 1});
    cpu().reduce(Reduce::sum, y, x);
    for (int64_t r = 0; r < 23; ++r) {
      cpu().reduce(Reduce::sum, alone, view_over(static_cast<float*>(x.view().data) + r * n, f32, {1, n}));
      CHECK(alone[0] == y[r]);
    }
  }
}

TEST_CASE("reduce: NaN passes through max and min of every row and column") {
  for (const int64_t n : {3, 9, 33, 100, 600}) {
    const auto value = [n](int64_t i) { return i % n == i / n % n ? std::nan("") : small(i); };
    const Array x(f32, {21, n}, value);
    Array rows(f32, {21, 1}), columns(f32, {1, n});
    for (const Reduce op : {Reduce::max, Reduce::min}) {
      cpu().reduce(op, rows, x);
      cpu().reduce(op, columns, x);
      for (const double v : rows.values()) CHECK(std::isnan(v));
      for (int64_t j = 0; j < n; ++j) CHECK(std::isnan(columns[j]) == (j < 21));
    }
  }
}

TEST_CASE("reduce: infinities in logsumexp") {
  const double inf = std::numeric_limits<double>::infinity();
  Array y(f32, {1});
  cpu().reduce(Reduce::logsumexp, y, List(f32, {-inf, -inf}));
  CHECK(y[0] == -inf);
  cpu().reduce(Reduce::logsumexp, y, List(f32, {inf, 1}));
  CHECK(y[0] == inf);
  cpu().reduce(Reduce::logsumexp, y, List(f32, {-inf, 2}));
  CHECK(y[0] == 2);
  cpu().reduce(Reduce::logsumexp, y, List(f32, {1000, 1000}));
  CHECK(close(y[0], 1000 + std::log(2), 1e-6));
}

TEST_CASE("reduce: of nothing, the neutral element; to nothing, nothing") {
  const Array x(f32, {3, 0});
  Array y(f32, {3, 1}), none(f32, {1, 0}), truth(boolean, {3, 1});
  for (const auto& [op, neutral] : {std::pair{Reduce::sum, 0.0}, {Reduce::prod, 1.0}, {Reduce::sum_of_squares, 0.0}}) {
    cpu().reduce(op, y, x);
    CHECK(y.values() == std::vector<double>(3, neutral));
    cpu().reduce(op, none, x);
  }
  cpu().reduce(Reduce::all, truth, x);
  CHECK(truth.values() == std::vector<double>(3, 1));
  cpu().reduce(Reduce::any, truth, x);
  CHECK(truth.values() == std::vector<double>(3, 0));
  cpu().reduce(Reduce::mean, y, x);
  CHECK(std::isnan(y[0]));
  cpu().reduce(Reduce::logsumexp, y, x);
  CHECK(y[0] == -std::numeric_limits<double>::infinity());
}

TEST_CASE("reduce: floating only") {
  Array x(i64, {2}), y(i64, {1});
  CHECK(error_of([&] { cpu().reduce(Reduce::mean, y, x); }) == "mean: expects a floating dtype, got i64");
}

TEST_CASE("arg_reduce: every dtype and dim; ties give the first, NaN wins") {
  for (const DType t : all_dtypes)
    for (const int64_t n : {1, 5, 33, 1025})
      for (const int dim : {0, 1})
        for (const Dims& strides : layouts(n, 9))
          for (const ArgReduce op : {ArgReduce::max, ArgReduce::min}) {
            const Array x(t, {n, 9}, strides, scrambled);
            const Dims out = without({n, 9}, 1u << dim);
            Array values(t, out), index(i64, out);
            cpu().arg_reduce(op, values, index, x, dim);
            const int64_t length = dim == 0 ? n : 9;
            bool right = true;
            for (int64_t o = 0; o < out.numel(); ++o) {
              const auto element = [&](int64_t i) { return dim == 0 ? x[i * 9 + o] : x[o * 9 + i]; };
              int64_t best = 0;
              for (int64_t i = 1; i < length; ++i)
                if (op == ArgReduce::max ? element(i) > element(best) : element(i) < element(best)) best = i;
              right &= index[o] == static_cast<double>(best) && values[o] == element(best);
            }
            REQUIRE(right);
          }
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const List x(f32, {1, nan, 7, nan});
  Array value(f32, {1}), index(i64, {1});
  cpu().arg_reduce(ArgReduce::max, value, index, x, 0);
  CHECK(std::isnan(value[0]));
  CHECK(index[0] == 1);
}

TEST_CASE("arg_reduce: the first of equal ones, or the first NaN, wherever it stands in a long row") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const DType t : {f64, f32, f16, i64})
    for (const int64_t n : {15, 64, 130, 511, 4095, 4097, 9001})
      for (const int64_t at : {int64_t{0}, int64_t{7}, n / 2, n - 2, n - 1})
        for (const double best : {3.0, -2.0, nan}) {
          if (t == i64 && std::isnan(best)) continue;
          const ArgReduce op = best < 0 ? ArgReduce::min : ArgReduce::max;
          const Array x(t, {1, n}, [&](int64_t i) { return i == at || i > at + 70 ? best : i % 3; });
          Array value(t, {1, 1}), index(i64, {1, 1});
          cpu().arg_reduce(op, value, index, x, 1);
          if (std::isnan(best))
            REQUIRE(std::isnan(value[0]));
          else
            REQUIRE(value[0] == best);
          REQUIRE(index[0] == static_cast<double>(at));
        }
  const Array low(f32, {2, 20}, [](int64_t) { return -std::numeric_limits<double>::infinity(); });
  Array value(f32, {2, 1}), index(i64, {2, 1});
  cpu().arg_reduce(ArgReduce::max, value, index, low, 1);
  CHECK(index.values() == std::vector<double>{0, 0});
  CHECK(value[1] == -std::numeric_limits<double>::infinity());
}

TEST_CASE("cumulative: sums and products along either dim, any layout") {
  for (const DType t : {f64, f32, f16, bf16, i64, i32})
    for (const int64_t n : {0, 1, 5, 33, 1025})
      for (const int dim : {0, 1})
        for (const Dims& strides : layouts(n, 9))
          for (const Cumulative op : {Cumulative::sum, Cumulative::product}) {
            const bool sum = op == Cumulative::sum;
            const Array x(t, {n, 9}, strides, [&](int64_t i) { return sum ? small(i) : i % 3 == 0 ? -1 : 1; });
            Array y(t, {n, 9});
            cpu().cumulative(op, y, x, dim);
            for (int64_t i = 0; i < x.numel(); ++i) {
              const int64_t step = dim == 0 ? 9 : 1, position = dim == 0 ? i / 9 : i % 9;
              double expected = sum ? 0 : 1;
              for (int64_t k = 0; k <= position; ++k) {
                const double v = x[i - (position - k) * step];
                expected = sum ? expected + v : expected * v;
              }
              REQUIRE(close(y[i], expected, tolerance(t)));
            }
          }
}
