#include <bit>
#include <cmath>

#include <doctest/doctest.h>

#include "array.h"

using namespace loom;
using namespace loom::testing;

namespace {

// What `value` is in dtype t.
double as(DType t, double value) {
  Array one(t, {1});
  one.set(0, t == u8 ? static_cast<double>(static_cast<uint8_t>(static_cast<int32_t>(value))) : value);
  return one[0];
}

}  // namespace

TEST_CASE("copy: every dtype to every dtype, every layout") {
  for (const DType from : all_dtypes)
    for (const DType to : all_dtypes)
      for (const int64_t rows : {1, 5, 33})
        for (const int64_t columns : {1, 7, 129})
          for (const Dims& x_strides : layouts(rows, columns))
            for (const Dims& y_strides : layouts(rows, columns)) {
              const Array x(from, {rows, columns}, x_strides, scrambled);
              Array y(to, {rows, columns}, y_strides);
              cpu().copy(y, x);
              bool same = true;
              for (int64_t i = 0; i < x.numel(); ++i) same &= y[i] == as(to, x[i]);
              REQUIRE_MESSAGE(same, to_string(from), " to ", to_string(to), " ", rows, " x ", columns);
            }
}

TEST_CASE("copy: f32 to bf16 rounds to nearest even whatever stands beside: subnormals, halves, infinities, NaN") {
  const uint32_t below[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
  const auto number = [&](int64_t i, bool subnormals) {
    const auto high = static_cast<uint32_t>(i * 4001 % 65536) << 16;
    return std::bit_cast<float>((subnormals && i % 37 == 0 ? high & 0x807f0000u : high) | below[i % 6]);
  };
  for (const bool subnormals : {false, true})
    for (const int64_t n : {1, 16, 31, 32, 33, 70, 40000}) {
      const Array x(f32, {n}, [&](int64_t i) { return number(i, subnormals); });
      Array y(bf16, {n});
      cpu().copy(y, x);
      for (int64_t i = 0; i < n; ++i) {
        const double expected = static_cast<float>(BFloat16(static_cast<float>(x[i])));
        const bool same = y[i] == expected && std::signbit(y[i]) == std::signbit(expected);
        REQUIRE_MESSAGE((same || (std::isnan(y[i]) && std::isnan(expected))), "of ", x[i], ": ", y[i]);
      }
    }
}

TEST_CASE("copy: permuted, broadcast, empty, scalar") {
  for (const DType t : {f32, bf16, u8}) {
    const Array x(t, {9, 4, 40, 5}, {800, 200, 5, 1}, scrambled);
    Array y(t, {9, 4, 40, 5}, {800, 1, 4, 160});  // channels last, and back
    cpu().copy(y, x);
    CHECK(y.values() == x.values());
    Array z(t, {9, 4, 40, 5});
    cpu().copy(z, y);
    CHECK(z.values() == x.values());
  }
  const Array row(f32, {3, 5}, {0, 1}, [](int64_t i) { return i % 5; });
  Array y(f64, {3, 5});
  cpu().copy(y, row);
  CHECK(y.values() == row.values());
  const Array column(f32, {6, 8}, {1, 0}, [](int64_t i) { return i / 8; });
  Array wide(f32, {6, 8});
  cpu().copy(wide, column);
  CHECK(wide.values() == column.values());
  Array empty(f32, {3, 0});
  cpu().copy(empty, Array(i32, {3, 0}));
  Array scalar(f32, Dims{}), source(i64, Dims{});
  source.set(0, 42);
  cpu().copy(scalar, source);
  CHECK(scalar[0] == 42);
}

TEST_CASE("copy: short runs, side by side and repeated") {
  for (const DType t : {f64, f32, bf16, u8})
    for (const int64_t n : {1, 2, 3, 4, 7, 8, 16, 17}) {
      Array y(t, {300, 2 * n});
      for (const int64_t half : {0, 1}) {  // [300, n] beside another
        const Array x(t, {300, n}, scrambled);
        View part = y;
        part.shape[1] = n;
        part.data = static_cast<char*>(part.data) + static_cast<size_t>(half * n) * item_size(t);
        cpu().copy(part, x);
        bool same = true;
        for (int64_t i = 0; i < x.numel(); ++i) same &= y[i / n * 2 * n + half * n + i % n] == x[i];
        REQUIRE(same);
      }
      const Array one(t, {300, 5, n}, {n, 0, 1}, scrambled);
      Array repeated(t, {300, 5, n});
      cpu().copy(repeated, one);
      CHECK(repeated.values() == one.values());
    }
}

namespace {

// Copies rows that are turned around, each or among each other, into the middle of larger ones; what lies around them
// stays.
template <class T>
void check_large_rows(DType t, bool rows_turned, bool columns_turned) {
  const int64_t columns = 3001, gap = 5, rows = (int64_t{17} << 20) / (columns * static_cast<int64_t>(sizeof(T)));
  std::vector<T> x(static_cast<size_t>(rows * columns)), y(static_cast<size_t>(rows * (columns + gap) + 1), T{77});
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>((i * 7919 >> 3) + (i >> 11));
  View from{x.data(), t, {}, {rows, columns}, {columns, 1}},
      to{y.data() + 1, t, {}, {rows, columns}, {columns + gap, 1}};
  if (rows_turned) {
    from.data = x.data() + (rows - 1) * columns;
    from.strides[0] = -columns;
  }
  if (columns_turned) {
    from.data = from.as<T>() + columns - 1;
    from.strides[1] = -1;
  }
  cpu().copy(to, from);
  bool same = y[0] == T{77};
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns + gap; ++c) {
      const int64_t at = (rows_turned ? rows - 1 - r : r) * columns + (columns_turned ? columns - 1 - c : c);
      same &= y[static_cast<size_t>(r * (columns + gap) + c + 1)] == (c < columns ? x[static_cast<size_t>(at)] : T{77});
    }
  CHECK_MESSAGE(same, to_string(t), " ", rows_turned, " ", columns_turned);
}

}  // namespace

TEST_CASE("copy: large ones of rows in any order") {
  for (const bool rows_turned : {false, true})
    for (const bool columns_turned : {false, true}) {
      check_large_rows<uint8_t>(u8, rows_turned, columns_turned);
      check_large_rows<uint16_t>(bf16, rows_turned, columns_turned);
      check_large_rows<uint32_t>(f32, rows_turned, columns_turned);
      check_large_rows<uint64_t>(i64, rows_turned, columns_turned);
    }
}

TEST_CASE("copy: large arrays run in parallel") {
  const Array x(f32, {700, 600}, scrambled);
  Array dense(f32, {700, 600}), turned(f32, {700, 600}, {1, 700}), half(f16, {700, 600}, {1, 700});
  cpu().copy(dense, x);
  cpu().copy(turned, x);
  cpu().copy(half, x);
  CHECK(dense.values() == x.values());
  CHECK(turned.values() == x.values());
  CHECK(half.values() == x.values());
}

TEST_CASE("copy: not a number is true, numbers out of an integer's range do not trap") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const List x(f32, {nan, 0.0, -0.0, 1e30});
  Array truth(boolean, {4}), whole(i32, {4});
  cpu().copy(truth, x);
  cpu().copy(whole, x);
  CHECK(truth.values() == std::vector<double>{1, 0, 0, 1});
  CHECK(whole[1] == 0);
}

TEST_CASE("fill: both kinds of number, all dtypes and layouts") {
  for (const DType t : all_dtypes)
    for (const int64_t n : odd_sizes)
      for (const Dims& strides : layouts(n, 3)) {
        Array y(t, {n, 3}, strides);
        cpu().fill(y, 2.75);
        CHECK(y.values() == std::vector<double>(static_cast<size_t>(3 * n), as(t, 2.75)));
        cpu().fill(y, int64_t{1});
        CHECK(y.values() == std::vector<double>(static_cast<size_t>(3 * n), 1));
      }
  Array large(i64, {1});
  cpu().fill(large, (int64_t{1} << 53) + 1);
  CHECK(*large.view().as<int64_t>() == (int64_t{1} << 53) + 1);
  Array empty(f32, {0});
  cpu().fill(empty, 1.0);
}

TEST_CASE("arange") {
  for (const DType t : {f64, f32, f16, bf16, i64, i32, u8})
    for (const int64_t n : {0, 1, 5, 33, 100}) {
      Array y(t, {n}, {2});
      cpu().arange(y, 3, 2);
      for (int64_t i = 0; i < n; ++i) CHECK(y[i] == as(t, 3.0 + 2.0 * static_cast<double>(i)));
    }
  Array y(f64, {2000});
  cpu().arange(y, -1, 0.25);
  CHECK(y[1999] == -1 + 0.25 * 1999);
  Array whole(i64, {3});
  cpu().arange(whole, 0.5, 0.75);
  CHECK(whole.values() == std::vector<double>{0, 1, 2});
}
