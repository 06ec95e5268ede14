// SPDX-License-Identifier: Apache-2.0
// The innermost loop of every matrix product: a tile of c held in registers while k runs.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

// The tile that fills the registers: its accumulators, a row of b and one broadcast element of a. SSE needs a register
// for products too, and broadcasts by shuffles, which compete with the arithmetic: there a wide and low tile is faster.
inline constexpr int tile_vectors = has_fma ? 2 : 4;
inline constexpr int tile_rows = !has_fma ? 2 : vector_registers == 32 ? 14 : 6;

// Two bf16 that are neighbours along k: what one step of a bf16 product takes from a row of a or a column of b.
struct BFloat16Pair {
  uint32_t bits;
};

// E is what a tile multiplies: float, double or BFloat16Pair. It is summed in SumOf<E>.
template <class E>
inline constexpr bool is_pair = std::is_same_v<E, BFloat16Pair>;
template <class E>
using SumOf = std::conditional_t<is_pair<E>, float, E>;
// What E is made from, and how a sum of its products is stored at last.
template <class E>
using StoredOf = std::conditional_t<is_pair<E>, BFloat16, E>;

// The E at p in all lanes; a pair may lie at any element.
template <class E>
[[gnu::always_inline]] inline Vec<SumOf<E>> broadcast_step(const void* p) {
  SumOf<E> one;
  std::memcpy(&one, p, sizeof(one));
  return broadcast(one);
}
// sum + a * b
template <class E>
[[gnu::always_inline]] inline Vec<SumOf<E>> add_product(Vec<SumOf<E>> a, Vec<SumOf<E>> b, Vec<SumOf<E>> sum) {
  if constexpr (is_pair<E>)
    return pair_products(a, b, sum);
  else
    return fma(a, b, sum);
}

// A tile takes little of a at a step, too little for the processor's prefetchers to keep ahead of the second cache.
// Shorter vectors and pairs leave no time for asking.
template <class E>
inline constexpr bool asks_ahead = vector_bytes == 64 && !is_pair<E>;
inline constexpr int64_t steps_ahead = 24;

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
    if constexpr (asks_ahead<E>) __builtin_prefetch(base[0] + steps_ahead * a_step);
    Vec<T> row[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) std::memcpy(&row[j], b + j * lanes<T>, sizeof(row[j]));
#pragma GCC unroll 32
    for (int i = 0; i < rows; ++i) {
      const Vec<T> element = broadcast_step<E>(base[i / 3] + i % 3 * a_row);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) sum[i][j] = add_product<E>(element, row[j], sum[i][j]);
    }
#pragma GCC unroll 8
    for (int g = 0; g < bases; ++g) base[g] += a_step;
    b += b_step;
  }
}

}  // namespace loom::cpu
