#include <doctest/doctest.h>

#include <numeric>

#include "array.h"

using namespace loom;
using namespace loom::testing;

namespace {

// Indices of the first k of a line by the definition: stable, NaN largest.
std::vector<int64_t> order_of(const std::vector<double>& line, int64_t k, bool descending) {
  std::vector<int64_t> order(line.size());
  std::iota(order.begin(), order.end(), 0);
  const auto less = [](double a, double b) { return a < b || (std::isnan(b) && !std::isnan(a)); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    const double a = line[static_cast<size_t>(i)], b = line[static_cast<size_t>(j)];
    return descending ? less(b, a) : less(a, b);
  });
  order.resize(static_cast<size_t>(k));
  return order;
}

void check_sort(const Array& x, int dim, int64_t k, bool descending) {
  const int64_t n = x.view().shape[dim], lines = x.view().shape[1 - dim];
  const Dims out = dim == 0 ? Dims{k, lines} : Dims{lines, k};
  Array values(x.view().dtype, out, {1, out[0]}), index(i64, out);
  cpu().sort(values, index, x, dim, descending);
  for (int64_t l = 0; l < lines; ++l) {
    std::vector<double> line;
    for (int64_t i = 0; i < n; ++i) line.push_back(x[dim == 0 ? i * lines + l : l * n + i]);
    const std::vector<int64_t> expected = order_of(line, k, descending);
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = dim == 0 ? i * lines + l : l * k + i;
      REQUIRE(index[at] == static_cast<double>(expected[static_cast<size_t>(i)]));
      const double value = line[static_cast<size_t>(expected[static_cast<size_t>(i)])];
      REQUIRE((values[at] == value || (std::isnan(value) && std::isnan(values[at]))));
    }
  }
}

}  // namespace

TEST_CASE("sort: every dtype, size, dim, layout and k") {
  for (const DType t : all_dtypes)
    for (const int64_t n : odd_sizes)
      for (const int dim : {0, 1})
        for (const bool descending : {false, true})
          for (const int64_t k : {int64_t{1}, std::min<int64_t>(n, 5), (n + 1) / 2, n}) {
            const Dims shape = dim == 0 ? Dims{n, 3} : Dims{3, n};
            for (const Dims& strides : layouts(shape[0], shape[1]))
              check_sort(Array(t, shape, strides, scrambled), dim, k, descending);
          }
}

TEST_CASE("sort: NaN is largest, zeros of both signs are equal, infinities are in place") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (const DType t : floating_dtypes) {
    const Array x(t, {1, 9}, [&](int64_t i) {
      return std::vector{0.0, nan, -inf, -0.0, inf, nan, -1.5, 0.0, 2.0}[static_cast<size_t>(i)];
    });
    for (const bool descending : {false, true})
      for (const int64_t k : {1, 4, 9}) check_sort(x, 1, k, descending);
  }
}

TEST_CASE("sort: integers at their limits") {
  Array x(i64, {1, 3}), values(i64, {1, 3}), index(i64, {1, 3});
  x.view().as<int64_t>()[0] = std::numeric_limits<int64_t>::max();
  x.view().as<int64_t>()[1] = std::numeric_limits<int64_t>::max() - 1;
  x.view().as<int64_t>()[2] = std::numeric_limits<int64_t>::min();
  cpu().sort(values, index, x, 1, false);
  CHECK(index.values() == std::vector<double>{2, 1, 0});
}

TEST_CASE("sort: lines of 64 bits whose numbers differ high, low, or in one outlier") {
  const auto spread = [](int64_t i) {
    return static_cast<double>(static_cast<int64_t>(static_cast<uint64_t>(i) * 6364136223846793005u) >> 11);
  };
  const std::function<double(int64_t)> kinds[] = {
      spread, [](int64_t i) { return i == 7 ? -0x1p62 : static_cast<double>(i * 7919 % 10); },
      [](int64_t i) { return static_cast<double>(i % 3) * 0x1p50 + static_cast<double>(i * 7919 % 1000); },
      [](int64_t i) { return static_cast<double>(i * 7919 % 1009) * 0x1p30 + static_cast<double>(i % 5); },
      [](int64_t) { return -3.0; }};
  for (const DType t : {i64, f64})
    for (const auto& kind : kinds)
      for (const int64_t n : {63, 64, 100, 1000, 9000})
        for (const bool descending : {false, true})
          for (const int64_t k : {n / 2, n}) check_sort(Array(t, {2, n}, kind), 1, k, descending);
  for (const bool descending : {false, true}) check_sort(Array(f32, {2, 9000}, spread), 1, 9000, descending);
}

TEST_CASE("sort: empty") {
  Array x(f32, {0, 3}), values(f32, {0, 3}), index(i64, {0, 3});
  cpu().sort(values, index, x, 0, false);
  cpu().sort(values, index, x, 1, false);
}
