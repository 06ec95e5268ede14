// SPDX-License-Identifier: Apache-2.0
// The innermost loop of every matrix product: a tile of c held in registers while k runs.
#pragma once

#include <cstdint>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

// The tile that fills the registers: its accumulators, a row of b and one broadcast element of a.
inline constexpr int tile_vectors = 2;
inline constexpr int tile_rows = vector_registers == 32 ? 14 : 6;

// sum[i][j] += a[p * a_step + i * a_row] * b[p * b_step + j], p = 0 .. k - 1 in this order for every element, so that a
// result does not depend on the tile that an element falls into. Steps in elements; a_row is 1 in a packed panel.
template <int rows, int vectors, class T>
[[gnu::always_inline]] inline void multiply_tile(int64_t k, const T* a, int64_t a_step, int64_t a_row, const T* b,
                                                 int64_t b_step, Vec<T> (&sum)[rows][vectors]) {
  for (int64_t p = 0; p < k; ++p) {
    Vec<T> row[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) row[j] = load(b + j * lanes<T>);
#pragma GCC unroll 32
    for (int i = 0; i < rows; ++i) {
      const Vec<T> element = broadcast(a[i * a_row]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sum[i][j] = fma(element, row[j], sum[i][j]);
    }
    a += a_step;
    b += b_step;
  }
}

}  // namespace loom::cpu
