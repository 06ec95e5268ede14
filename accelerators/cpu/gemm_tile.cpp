// SPDX-License-Identifier: Apache-2.0
#include <loom/accelerators/cpu/gemm_tile.h>

#include <array>
#include <utility>

namespace loom::cpu {

namespace {

// Calls write(element of the sum, its place in c) for all of a tile. Unrolled: the sums stay in registers.
template <int rows, int vectors, class T, class Write>
[[gnu::always_inline]] inline void for_each_vector(const Vec<T> (&sum)[rows][vectors], const Write& write) {
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) write(sum[i][j], i, j);
  }
}

template <int rows, int vectors, class E>
void tile(const Tile<E>& t) {
  using T = SumOf<E>;
  Vec<T> sum[rows][vectors];
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sum[i][j] = Vec<T>{};
  }
  multiply_tile<rows, vectors, E>(t.k, t.a, t.a_step, t.a_row, t.b, t.b_step, sum);

  const FirstLanes<T> mask(t.columns - (vectors - 1) * lanes<T>);
  const auto at = [&](int i, int j) __attribute__((always_inline)) { return t.c + i * t.c_row + j * lanes<T>; };
  const auto read = [&](const T* p, int j) __attribute__((always_inline)) {
    if constexpr (masks_tiles)
      if (j == vectors - 1) return load(p, mask);
    return load(p);
  };
  const auto write = [&](T * p, Vec<T> v, int j) __attribute__((always_inline)) {
    if constexpr (masks_tiles)
      if (j == vectors - 1) return store(p, v, mask);
    store(p, v);
  };
  const Vec<T> alpha = broadcast(t.end.alpha);
  if (t.end.bias != nullptr) {
    for_each_vector<rows, vectors, T>(
        sum, [&](Vec<T> s, int i, int j) __attribute__((always_inline)) {
          const T* const bias = t.end.bias + i * t.end.bias_row;
          write(at(i, j), s * alpha + (t.end.bias_column != 0 ? read(bias + j * lanes<T>, j) : broadcast(*bias)), j);
        });
  } else if (t.end.from != 0) {
    const Vec<T> from = broadcast(t.end.from);
    for_each_vector<rows, vectors, T>(
        sum, [&](Vec<T> s, int i, int j)
                 __attribute__((always_inline)) { write(at(i, j), s * alpha + from * read(at(i, j), j), j); });
  } else {
    for_each_vector<rows, vectors, T>(
        sum, [&](Vec<T> s, int i, int j) __attribute__((always_inline)) { write(at(i, j), s * alpha, j); });
  }
}

template <class E, int vectors, int... row>
constexpr std::array<TileKernel<E>, tile_rows> kernels_of(std::integer_sequence<int, row...>) {
  return {tile<row + 1, vectors, E>...};
}

template <class E, int... vector>
TileKernel<E> find(int64_t rows, int64_t vectors, std::integer_sequence<int, vector...>) {
  static constexpr std::array<TileKernel<E>, tile_rows> kernels[] = {
      kernels_of<E, vector + 1>(std::make_integer_sequence<int, tile_rows>())...};
  return kernels[vectors - 1][static_cast<size_t>(rows - 1)];
}

}  // namespace

template <class E>
TileKernel<E> tile_kernel(int64_t rows, int64_t vectors) {
  if constexpr (!is_pair<E> || may_have_pair_products)
    return find<E>(rows, vectors, std::make_integer_sequence<int, tile_vectors>());
  else
    return nullptr;
}

template TileKernel<float> tile_kernel<float>(int64_t, int64_t);
template TileKernel<double> tile_kernel<double>(int64_t, int64_t);
template TileKernel<BFloat16Pair> tile_kernel<BFloat16Pair>(int64_t, int64_t);

}  // namespace loom::cpu
