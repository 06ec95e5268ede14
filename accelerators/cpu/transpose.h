// SPDX-License-Identifier: Apache-2.0
// Blocks of elements turned over in registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <loom/accelerators/cpu/shuffle.h>

namespace loom::cpu {

// y[c][r] = x[r][c]; strides in bytes, y dense along r, x dense along c.
template <class Bits>
void transpose_block(char* y, int64_t y_stride, const char* x, int64_t x_stride, int64_t rows, int64_t columns) {
  constexpr auto item = static_cast<int64_t>(sizeof(Bits));
  int64_t whole_rows = 0, whole_columns = 0;
  if constexpr (sizeof(Bits) >= sizeof(float)) {  // squares of vectors
    using T = std::conditional_t<sizeof(Bits) == sizeof(float), float, double>;
    constexpr int64_t n = lanes<T>;
    whole_rows = rows - rows % n;
    whole_columns = columns - columns % n;
    for (int64_t c = 0; c < whole_columns; c += n)
      for (int64_t r = 0; r < whole_rows; r += n) {
        Vec<T> square[n];
#pragma GCC unroll 16
        for (int64_t i = 0; i < n; ++i) std::memcpy(&square[i], x + (r + i) * x_stride + c * item, vector_bytes);
        transpose<T>(square);
#pragma GCC unroll 16
        for (int64_t i = 0; i < n; ++i) std::memcpy(y + (c + i) * y_stride + r * item, &square[i], vector_bytes);
      }
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
