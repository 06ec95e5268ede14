// SPDX-License-Identifier: Apache-2.0
// Tiles of a product, and what is done to a sum before it becomes an element of c.
#pragma once

#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/micro_kernel.h>

namespace loom::cpu {

// What joins alpha times the sum in c: `from` times what a matrix holds (c itself or sums of earlier blocks of k;
// 0: it is not read), or a bias, or neither. This is the place for what else could be done to a tile in registers.
template <class T>
struct TileEnd {
  T alpha = 1, from = 0;
  const T* base = nullptr;
  int64_t base_row = 0;
  const T* bias = nullptr;  // bias[i * bias_row + j * bias_column], bias_column 0 or 1
  int64_t bias_row = 0, bias_column = 0;
};

// c[i][j] from k steps of a and b, for all rows of the tile and `columns` of its vectors * lanes columns.
template <class E, class C>
struct Tile {
  int64_t k;
  const E* a;
  int64_t a_step, a_row;
  const E* b;
  int64_t b_step;
  C* c;
  int64_t c_row, columns;
  TileEnd<SumOf<E>> end;
  // What a later tile reads as a's rows, asked for meanwhile: for each row of c so many steps, a_step apart.
  const E* ahead = nullptr;
  int64_t ahead_steps = 0;
};
template <class E, class C>
using TileKernel = void (*)(const Tile<E, C>&);

// Whether kernels write tiles that end within a vector; elsewhere the caller
// lets them write whole vectors to memory of its own.
inline constexpr bool masks_tiles = vector_bytes == 64;

// 1 <= rows <= tile_rows, 1 <= vectors <= tile_vectors. There are kernels for float and double into the same, and for
// BFloat16Pair, where that may be used, into float and BFloat16.
template <class E, class C>
inline constexpr bool has_tile_kernel =
    is_pair<E> ? may_have_pair_products && (std::is_same_v<C, float> || std::is_same_v<C, BFloat16>)
               : std::is_same_v<C, E>;
template <class E, class C>
TileKernel<E, C> tile_kernel(int64_t rows, int64_t vectors);

}  // namespace loom::cpu
