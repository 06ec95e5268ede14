// SPDX-License-Identifier: Apache-2.0
// Arrays for tests of kernels: any dtype in any memory layout, read and written as doubles, and comparison with a
// reference computed in double.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cpu.h>
#include <loom/accelerators/threads.h>

namespace kernel_test {

using namespace loom;

inline constexpr DType floating[] = {DType::f64, DType::f32, DType::f16, DType::bf16};

inline double epsilon(DType t) {
  switch (t) {
    case DType::f64:
      return 0x1p-52;
    case DType::f16:
      return 0x1p-10;
    case DType::bf16:
      return 0x1p-7;
    default:
      return 0x1p-23;
  }
}

inline int64_t offset_of(const View& x, int64_t index) {
  int64_t offset = 0;
  for (int d = x.rank() - 1; d >= 0; --d) {
    offset += index % x.shape[d] * x.strides[d];
    index /= x.shape[d];
  }
  return offset;
}
// Element `index` in row-major order.
inline double get(const View& x, int64_t index) {
  return with_type(x.dtype, [&]<class T> { return static_cast<double>(x.as<T>()[offset_of(x, index)]); });
}
inline void set(const View& x, int64_t index, double value) {
  with_type(x.dtype, [&]<class T> {
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>)
      x.as<T>()[offset_of(x, index)] = T(static_cast<float>(value));
    else if constexpr (std::is_integral_v<T>)
      x.as<T>()[offset_of(x, index)] = static_cast<T>(static_cast<int64_t>(value));  // u8 wraps around
    else
      x.as<T>()[offset_of(x, index)] = static_cast<T>(value);
  });
}

enum class Layout { dense, transposed, sliced };
inline constexpr Layout layouts[] = {Layout::dense, Layout::transposed, Layout::sliced};

// Memory of its own behind a view; transposed: the last two dims lie swapped; sliced: every second element of a row.
// Starts as NaN (integers: -77), so that an element which a kernel forgets shows.
struct Array {
  View view;
  std::vector<std::byte> memory;

  Array(DType t, const Dims& shape, Layout layout = Layout::dense) {
    Dims stored = shape;
    const int last = shape.size() - 1;
    const bool swap = layout == Layout::transposed && last > 0, slice = layout == Layout::sliced && last >= 0;
    if (swap) std::swap(stored[last - 1], stored[last]);
    if (slice) stored[last] = 2 * stored[last] + 1;
    memory.resize(static_cast<size_t>(stored.numel()) * item_size(t) + 64);
    view = view_over(memory.data(), t, stored);
    fill_blank();
    if (swap) std::swap(view.strides[last - 1], view.strides[last]);
    if (slice) {
      view.strides[last] = 2;
      view.data = memory.data() + item_size(t);
    }
    view.shape = shape;
  }
  Array(Array&&) = default;  // a moved vector keeps its memory, so the view stays right
  Array& operator=(Array&&) = default;
  operator const View&() const { return view; }  // NOLINT: an array is passed as its view

 private:
  void fill_blank() const {
    for (int64_t i = 0; i < view.numel(); ++i)
      set(view, i, is_floating(view.dtype) ? std::numeric_limits<double>::quiet_NaN() : -77);
  }
};

inline Array random(DType t, const Dims& shape, Layout layout = Layout::dense, double low = -1, double high = 1) {
  static std::mt19937 generator(42);
  Array out(t, shape, layout);
  std::uniform_real_distribution<double> draw(low, high);
  for (int64_t i = 0; i < shape.numel(); ++i) set(out.view, i, draw(generator));
  return out;
}
inline Array array(DType t, const Dims& shape, const std::vector<double>& values, Layout layout = Layout::dense) {
  Array out(t, shape, layout);
  for (int64_t i = 0; i < shape.numel(); ++i) set(out.view, i, values[static_cast<size_t>(i)]);
  return out;
}
inline Array list(const std::vector<int64_t>& values) {
  Array out(DType::i64, {static_cast<int64_t>(values.size())});
  for (size_t i = 0; i < values.size(); ++i) set(out.view, static_cast<int64_t>(i), static_cast<double>(values[i]));
  return out;
}
inline View without() { return {}; }

inline std::vector<double> values(const View& x) {
  std::vector<double> out(static_cast<size_t>(x.numel()));
  for (size_t i = 0; i < out.size(); ++i) out[i] = get(x, static_cast<int64_t>(i));
  return out;
}

// Every element within tolerance * (1 + |expected|); NaN and infinities must be the same.
inline void check_close(const View& got, const std::vector<double>& expected, double tolerance) {
  REQUIRE(got.numel() == static_cast<int64_t>(expected.size()));
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < got.numel(); ++i) {
    const double a = get(got, i), b = expected[static_cast<size_t>(i)];
    const bool same = a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= tolerance * (1 + std::abs(b));
    if (!same && wrong++ == 0) first = i;
  }
  if (wrong == 0) return;
  FAIL_CHECK(wrong << " of " << got.numel() << " elements differ (" << to_string(got.dtype) << "); element " << first
                   << " is " << get(got, first) << ", expected " << expected[static_cast<size_t>(first)] << " within "
                   << tolerance);
}

// Sets the number of threads for a scope.
class Threads {
 public:
  explicit Threads(int n) : before_(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before_); }
  Threads(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace kernel_test
