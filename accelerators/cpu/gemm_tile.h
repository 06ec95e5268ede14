// SPDX-License-Identifier: Apache-2.0
// Tiles of a product, and what is done to a sum before it becomes an element of c.
#pragma once

#include <cstdint>

#include <loom/accelerators/cpu/micro_kernel.h>

namespace loom::cpu {

// What joins alpha times the sum in c: `from` times what c held (0: c is not read), or a bias, or neither. This is the
// place for anything else that could be done while the tile is in registers.
template <class T>
struct TileEnd {
  T alpha = 1, from = 0;
  const T* bias = nullptr;  // bias[i * bias_row + j * bias_column], one of the strides 1, the other 0
  int64_t bias_row = 0, bias_column = 0;
};

// c[i][j] from k steps of a and b, for all rows of the tile and `columns` of its vectors * lanes columns; only
// tiles that masks_tiles or that are full in columns.
template <class E>
struct Tile {
  int64_t k;
  const E* a;
  int64_t a_step, a_row;
  const E* b;
  int64_t b_step;
  SumOf<E>* c;
  int64_t c_row, columns;
  TileEnd<SumOf<E>> end;
};
template <class E>
using TileKernel = void (*)(const Tile<E>&);

// Whether kernels write tiles that end within a vector; elsewhere the caller lets them write to memory of its own.
inline constexpr bool masks_tiles = vector_bytes == 64;

// 1 <= rows <= tile_rows, 1 <= vectors <= tile_vectors. For float, double, and BFloat16Pair where that may be used.
template <class E>
TileKernel<E> tile_kernel(int64_t rows, int64_t vectors);

}  // namespace loom::cpu
