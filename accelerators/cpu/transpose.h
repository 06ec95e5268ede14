// SPDX-License-Identifier: Apache-2.0
// Blocks of elements turned over in registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <loom/accelerators/cpu/shuffle.h>

namespace loom::cpu {

// y[c][r] = x[r][c] of a square, as many elements a side as a vector has. Of 16 bits two rows are made one of pairs,
// which are turned over as elements of 32.
template <class Bits>
[[gnu::always_inline]] inline void transpose_square(char* y, int64_t y_stride, const char* x, int64_t x_stride) {
  using T = std::conditional_t<sizeof(Bits) == sizeof(double), double, float>;
  constexpr int64_t n = lanes<T>;
  constexpr bool pairs = sizeof(Bits) == 2;
  for (int64_t half = 0; half < (pairs ? 2 : 1); ++half) {
    Vec<T> square[n];
#pragma GCC unroll 16
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (pairs) {
        const auto* const row = reinterpret_cast<const Bits*>(x + 2 * i * x_stride);
        const auto* const next = reinterpret_cast<const Bits*>(x + (2 * i + 1) * x_stride);
        square[i] =
            (Vec<T>)(half == 0 ? interleave_low(load(row), load(next)) : interleave_high(load(row), load(next)));
      } else {
        std::memcpy(&square[i], x + i * x_stride, vector_bytes);
      }
    }
    transpose<T>(square);
#pragma GCC unroll 16
    for (int64_t i = 0; i < n; ++i) std::memcpy(y + (half * n + i) * y_stride, &square[i], vector_bytes);
  }
}

// y[c][r] = x[r][c]; strides in bytes, y dense along r, x dense along c. A row of squares after the other, so that x is
// read in order.
template <class Bits>
void transpose_block(char* y, int64_t y_stride, const char* x, int64_t x_stride, int64_t rows, int64_t columns) {
  constexpr auto item = static_cast<int64_t>(sizeof(Bits));
  int64_t whole_rows = 0, whole_columns = 0;
  if constexpr (sizeof(Bits) > 1) {
    constexpr int64_t n = lanes<Bits>;
    whole_rows = rows - rows % n;
    whole_columns = columns - columns % n;
    for (int64_t r = 0; r < whole_rows; r += n)
      for (int64_t c = 0; c < whole_columns; c += n)
        transpose_square<Bits>(y + c * y_stride + r * item, y_stride, x + r * x_stride + c * item, x_stride);
  }
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; ++r)
      std::memcpy(y + c * y_stride + r * item, x + r * x_stride + c * item, sizeof(Bits));
}

using TransposeBlock = void (*)(char*, int64_t, const char*, int64_t, int64_t, int64_t);

inline TransposeBlock transpose_of(size_t item) {
  switch (item) {
    case 1:
      return transpose_block<uint8_t>;
    case 2:
      return transpose_block<uint16_t>;
    case 4:
      return transpose_block<uint32_t>;
    default:
      return transpose_block<uint64_t>;
  }
}

}  // namespace loom::cpu
