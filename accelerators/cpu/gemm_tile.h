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

// Memory that is wanted later, asked for while tiles are computed, a part of it with each row of a tile: runs of it,
// run_step bytes apart and in `parts` each; of a part so many places, step bytes apart, by two bytes `width` apart.
// soon: into the first cache.
struct Ahead {
  const char* run = nullptr;
  int64_t run_step = 0, part = 0, parts = 1, places = 0, step = 0, width = 0;
  bool soon = false;
};

[[gnu::always_inline]] inline void ask_for_part(Ahead& x) {
  const char* at = x.run + x.part * x.places * x.step;
  for (int64_t p = 0; p < x.places; ++p, at += x.step) {
    x.soon ? prefetch(at) : prefetch_second(at);
    x.soon ? prefetch(at + x.width) : prefetch_second(at + x.width);
  }
  if (++x.part < x.parts) return;
  x.part = 0;
  x.run += x.run_step;
}

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
  Ahead ahead;
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
