// SPDX-License-Identifier: Apache-2.0
// The innermost loop of every matrix product: a tile of c held in registers while k runs.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

// The tile that fills the registers: its accumulators, a row of b and one broadcast element of a.
inline constexpr int tile_vectors = 2;
inline constexpr int tile_rows = vector_registers == 32 ? 14 : 6;

// Two bf16 that are neighbours along k: what one step of a bf16 product takes from a row of a or a column of b.
struct BFloat16Pair {
  uint32_t bits;
};

// E is what a tile multiplies: float, double or BFloat16Pair. It is summed in SumOf<E>.
template <class E>
inline constexpr bool is_pair = std::is_same_v<E, BFloat16Pair>;
template <class E>
using SumOf = std::conditional_t<is_pair<E>, float, E>;

// sum[i][j] += a[p * a_step + i * a_row] * b[p * b_step + j], p = 0 .. k - 1 in this order for every element, so that a
// result does not depend on the tile that an element falls into. Steps count elements; a_row is 1 in a packed panel.
template <int rows, int vectors, class E>
[[gnu::always_inline]] inline void multiply_tile(int64_t k, const E* a, int64_t a_step, int64_t a_row, const E* b,
                                                 int64_t b_step, Vec<SumOf<E>> (&sum)[rows][vectors]) {
  using T = SumOf<E>;
  constexpr int bases = (rows + 2) / 3;  // a third row is reached by the processor's scaled index: fewer pointers
  const E* base[bases];
#pragma GCC unroll 8
  for (int g = 0; g < bases; ++g) base[g] = a + 3 * g * a_row;
  for (int64_t p = 0; p < k; ++p) {
    Vec<T> row[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) std::memcpy(&row[j], b + j * lanes<T>, sizeof(row[j]));
#pragma GCC unroll 32
    for (int i = 0; i < rows; ++i) {
      const Vec<T> element = broadcast(std::bit_cast<T>(base[i / 3][i % 3 * a_row]));
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) {
        if constexpr (is_pair<E>)
          sum[i][j] = pair_products(element, row[j], sum[i][j]);
        else
          sum[i][j] = fma(element, row[j], sum[i][j]);
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < bases; ++g) base[g] += a_step;
    b += b_step;
  }
}

}  // namespace loom::cpu
