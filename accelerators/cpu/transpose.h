// SPDX-License-Identifier: Apache-2.0
// Blocks of elements turned over in registers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <loom/accelerators/cpu/shuffle.h>

namespace loom::cpu {

namespace transpose_detail {

inline constexpr int part_bytes = 16;  // of a vector: what most instructions rearrange within

template <class V, int... I>
[[gnu::always_inline]] inline V interleave_parts(V a, V b, bool upper, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I), in_part = part_bytes / static_cast<int>(sizeof(V{}[0]));
  return upper ? __builtin_shufflevector(a, b, (I / in_part * in_part + in_part / 2 + I % in_part / 2 + I % 2 * n)...)
               : __builtin_shufflevector(a, b, (I / in_part * in_part + I % in_part / 2 + I % 2 * n)...);
}

template <class V, int... I>
[[gnu::always_inline]] inline auto joined(V low, V high, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(low, high, I...);
}

// A vector of parts that lie `step` bytes apart.
template <class Bits, int bytes>
[[gnu::always_inline]] inline auto load_parts(const char* x, int64_t step) {
  if constexpr (bytes == part_bytes) {
    typename VectorOf<Bits, part_bytes>::type part;
    std::memcpy(&part, x, sizeof(part));
    return part;
  } else {
    constexpr int half = bytes / 2, lane_count = bytes / static_cast<int>(sizeof(Bits));
    return joined(load_parts<Bits, half>(x, step), load_parts<Bits, half>(x + half / part_bytes * step, step),
                  std::make_integer_sequence<int, lane_count>());
  }
}

// As many columns as a part has elements, as many rows as a vector has.
template <class Bits, int bytes>
[[gnu::always_inline]] inline void turn(char* y, int64_t y_stride, const char* x, int64_t x_stride) {
  using V = typename VectorOf<Bits, bytes>::type;
  constexpr int n = part_bytes / static_cast<int>(sizeof(Bits));
  V rows[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) rows[i] = load_parts<Bits, bytes>(x + i * x_stride, n * x_stride);
#pragma GCC unroll 4
  for (int stage = 1; stage < n; stage *= 2) {
    V next[n];
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = interleave_parts(rows[i], rows[i + n / 2], false, LaneSequence<V>());
      next[2 * i + 1] = interleave_parts(rows[i], rows[i + n / 2], true, LaneSequence<V>());
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) std::memcpy(y + i * y_stride, &rows[i], sizeof(V));
}

// By vectors of so many bytes, a line's worth of columns at a time; the rows that are left in shorter ones, and single
// elements at last.
template <class Bits, int bytes>
void turn_all(char* y, int64_t y_stride, const char* x, int64_t x_stride, int64_t rows, int64_t columns) {
  constexpr auto item = static_cast<int64_t>(sizeof(Bits));
  const auto turn_elements = [&](int64_t row, int64_t column) {
    for (int64_t c = column; c < columns; ++c)
      for (int64_t r = row; r < rows; ++r)
        std::memcpy(y + c * y_stride + r * item, x + r * x_stride + c * item, sizeof(Bits));
  };
  if constexpr (bytes < part_bytes) {
    turn_elements(0, 0);
  } else {
    constexpr int64_t height = bytes / item, width = part_bytes / item, in_line = 64 / item;
    const int64_t whole_rows = rows - rows % height, whole_columns = columns - columns % width;
    for (int64_t first = 0; first < whole_columns; first += in_line)
      for (int64_t r = 0; r < whole_rows; r += height)
        for (int64_t c = first; c < std::min(first + in_line, whole_columns); c += width)
          turn<Bits, bytes>(y + c * y_stride + r * item, y_stride, x + r * x_stride + c * item, x_stride);
    if (whole_rows < rows)
      turn_all<Bits, bytes / 2>(y + whole_rows * item, y_stride, x + whole_rows * x_stride, x_stride, rows - whole_rows,
                                whole_columns);
    turn_elements(0, whole_columns);
  }
}

}  // namespace transpose_detail

// y[c][r] = x[r][c]; strides in bytes, y dense along r, x dense along c. Long vectors write lines of y at once, short
// ones read fewer lines of x together: these fall upon each other in L1 where x_stride is a multiple of a page.
template <class Bits, int bytes = vector_bytes>
void transpose_block(char* y, int64_t y_stride, const char* x, int64_t x_stride, int64_t rows, int64_t columns) {
  transpose_detail::turn_all<Bits, bytes>(y, y_stride, x, x_stride, rows, columns);
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
