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

// The first n lanes go to c.
template <class C, class T>
[[gnu::always_inline]] inline void write(C* p, Vec<T> v, int64_t n) {
  if constexpr (!std::is_same_v<C, T>)
    store_first(p, v, n);
  else if constexpr (masks_tiles)
    store(p, v, FirstLanes<T>(n));
  else
    store(p, v);
}
template <class T>
[[gnu::always_inline]] inline Vec<T> read(const T* p, int64_t n) {
  return masks_tiles ? load_first(p, n) : load(p);
}

// The sums over k. Meanwhile c comes, a row at a time, and what lies ahead: all at once would hold up what k reads.
template <bool more, int rows, int vectors, class E, class C>
[[gnu::always_inline]] inline void multiply(const Tile<E, C>& t, Vec<SumOf<E>> (&sum)[rows][vectors]) {
  constexpr int line = 64 / static_cast<int>(sizeof(C)), width = vectors * lanes<SumOf<E>>;
  const int64_t some = t.k / (rows + 1);
  const E *a = t.a, *b = t.b;
  Ahead ahead = t.ahead;
  const C* c = t.c;
  const SumOf<E>* added = t.end.bias_row > 1 ? t.end.bias : nullptr;  // a bias of each row is near
  for (int i = 0; i < rows; ++i, c += t.c_row) {
#pragma GCC unroll 8
    for (int j = 0; j < width; j += line) __builtin_prefetch(c + j, 1);
    if constexpr (more) {
      constexpr int added_line = 64 / static_cast<int>(sizeof(SumOf<E>));
      if (added != nullptr) {
#pragma GCC unroll 8
        for (int j = 0; j < width; j += added_line) __builtin_prefetch(added + j);
        added += t.end.bias_row;
      }
      ask_for_part(ahead);
    }
    const int64_t steps = i < rows - 1 ? some : t.k - (rows - 1) * some;
    multiply_tile<rows, vectors, E>(steps, a, t.a_step, t.a_row, b, t.b_step, sum);
    a += steps * t.a_step;
    b += steps * t.b_step;
  }
}

template <int rows, int vectors, class E, class C>
void tile(const Tile<E, C>& t) {
  using T = SumOf<E>;
  Vec<T> sum[rows][vectors];
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sum[i][j] = Vec<T>{};
  }
  // Two loops: a short one would feel to be asked for each row. Without fused products arithmetic is what takes time.
  if (has_fma && (t.ahead.places > 0 || t.end.bias_row > 1))
    multiply<has_fma, rows, vectors, E>(t, sum);
  else
    multiply<false, rows, vectors, E>(t, sum);

  constexpr int n = lanes<T>;
  const int64_t rest = t.columns - (vectors - 1) * n;
  const auto lanes_of = [&](int j) __attribute__((always_inline)) { return j == vectors - 1 ? rest : n; };
  const auto put = [&](Vec<T> v, int i, int j) __attribute__((always_inline)) {
    write<C, T>(t.c + i * t.c_row + j * n, v, lanes_of(j));
  };
  const Vec<T> alpha = broadcast(t.end.alpha);
  if (t.end.bias != nullptr) {
    for_each_vector<rows, vectors, T>(
        sum, [&](Vec<T> s, int i, int j) __attribute__((always_inline)) {
          const T* const bias = t.end.bias + i * t.end.bias_row;
          put(s * alpha + (t.end.bias_column != 0 ? read(bias + j * n, lanes_of(j)) : broadcast(*bias)), i, j);
        });
  } else if (t.end.from != 0) {
    const Vec<T> from = broadcast(t.end.from);
    for_each_vector<rows, vectors, T>(
        sum, [&](Vec<T> s, int i, int j) __attribute__((always_inline)) {
          put(s * alpha + from * read(t.end.base + i * t.end.base_row + j * n, lanes_of(j)), i, j);
        });
  } else {
    for_each_vector<rows, vectors, T>(
        sum, [&](Vec<T> s, int i, int j) __attribute__((always_inline)) { put(s * alpha, i, j); });
  }
}

template <class E, class C, int vectors, int... row>
constexpr std::array<TileKernel<E, C>, tile_rows> kernels_of(std::integer_sequence<int, row...>) {
  return {tile<row + 1, vectors, E, C>...};
}

template <class E, class C, int... vector>
TileKernel<E, C> find(int64_t rows, int64_t vectors, std::integer_sequence<int, vector...>) {
  static constexpr std::array<TileKernel<E, C>, tile_rows> kernels[] = {
      kernels_of<E, C, vector + 1>(std::make_integer_sequence<int, tile_rows>())...};
  return kernels[vectors - 1][static_cast<size_t>(rows - 1)];
}

}  // namespace

template <class E, class C>
TileKernel<E, C> tile_kernel(int64_t rows, int64_t vectors) {
  if constexpr (has_tile_kernel<E, C>)
    return find<E, C>(rows, vectors, std::make_integer_sequence<int, tile_vectors>());
  else
    return nullptr;
}

template TileKernel<float, float> tile_kernel(int64_t, int64_t);
template TileKernel<double, double> tile_kernel(int64_t, int64_t);
template TileKernel<BFloat16Pair, float> tile_kernel(int64_t, int64_t);
template TileKernel<BFloat16Pair, BFloat16> tile_kernel(int64_t, int64_t);

}  // namespace loom::cpu
