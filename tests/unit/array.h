// Test arrays for kernels: any dtype, any strides, outputs that start as NaN bytes, elements seen as doubles.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <loom/accelerators/accelerator.h>

#include "../error_of.h"

namespace loom::testing {

inline const std::vector<DType> all_dtypes = {f64, f32, f16, bf16, i64, i32, u8, boolean};
inline const std::vector<DType> floating_dtypes = {f64, f32, f16, bf16};
inline const std::vector<int64_t> odd_sizes = {1, 5, 7, 31, 33, 1025};

inline Accelerator& cpu() { return accelerator(Device()); }

class Array {
 public:
  // Dense, filled with NaN bytes.
  Array(DType dtype, const Dims& shape) : Array(dtype, shape, row_major_strides(shape)) {}
  Array(DType dtype, const Dims& shape, const Dims& strides) : view_{nullptr, dtype, {}, shape, strides} {
    int64_t last = 0;
    for (int i = 0; i < shape.size(); ++i) last += std::max<int64_t>(shape[i] - 1, 0) * strides[i];
    bytes_.assign(static_cast<size_t>(last + 1) * item_size(dtype), std::byte{0xff});
    view_.data = bytes_.data();
  }
  Array(DType dtype, const Dims& shape, const Dims& strides, const std::function<double(int64_t)>& f)
      : Array(dtype, shape, strides) {
    for (int64_t i = 0; i < numel(); ++i) set(i, f(i));
  }
  Array(DType dtype, const Dims& shape, const std::function<double(int64_t)>& f)
      : Array(dtype, shape, row_major_strides(shape), f) {}
  Array(const Array&) = delete;

  operator const View&() const { return view_; }  // NOLINT: an Array is a View with its memory
  const View& view() const { return view_; }
  int64_t numel() const { return view_.numel(); }

  double operator[](int64_t i) const {
    return with_type(view_.dtype, [&]<class T>() {
      T value;
      std::memcpy(&value, address(i), sizeof(T));
      return static_cast<double>(static_cast<compute_type<T>>(value));
    });
  }
  void set(int64_t i, double value) {
    with_type(view_.dtype, [&]<class T>() {
      T element;
      if constexpr (std::is_same_v<T, bool>)
        element = value != 0;
      else if constexpr (std::is_integral_v<T>)
        element = static_cast<T>(static_cast<int64_t>(value));
      else if constexpr (std::is_floating_point_v<T>)
        element = static_cast<T>(value);
      else
        element = T(static_cast<float>(value));
      std::memcpy(address(i), &element, sizeof(T));
    });
  }
  std::vector<double> values() const {
    std::vector<double> out;
    for (int64_t i = 0; i < numel(); ++i) out.push_back((*this)[i]);
    return out;
  }

 private:
  // Address of element i in row-major order.
  std::byte* address(int64_t i) const {
    int64_t offset = 0;
    for (int d = view_.rank() - 1; d >= 0; --d) {
      offset += i % view_.shape[d] * view_.strides[d];
      i /= view_.shape[d];
    }
    return static_cast<std::byte*>(view_.data) + offset * static_cast<int64_t>(item_size(view_.dtype));
  }

  View view_;
  std::vector<std::byte> bytes_;
};

// A dense array of rank 1 with these elements.
struct List : Array {
  List(DType dtype, const std::vector<double>& values)
      : Array(dtype, {static_cast<int64_t>(values.size())}, [&](int64_t i) { return values[static_cast<size_t>(i)]; }) {
  }
};

// Numbers that all dtypes can hold exactly, neither sorted nor regular.
inline double scrambled(int64_t i) { return static_cast<double>((i * 7919 + 13) % 101 - 50) / 4; }

// Relative precision of results in dtype t.
inline double tolerance(DType t) {
  return t == f64 ? 1e-12 : t == f32 ? 2e-6 : t == f16 ? 2e-3 : t == bf16 ? 1.6e-2 : 0;
}

inline bool close(double got, double expected, double relative, double absolute = 0) {
  if (std::isnan(expected)) return std::isnan(got);
  if (std::isinf(expected) || std::isinf(got)) return got == expected;
  return std::abs(got - expected) <= relative * std::max(1.0, std::abs(expected)) + absolute;
}

// Layouts of a rank 2 shape: dense, transposed, with gaps.
inline std::vector<Dims> layouts(int64_t rows, int64_t columns) {
  return {{columns, 1}, {1, rows}, {columns * 2 + 3, 2}};
}

}  // namespace loom::testing
