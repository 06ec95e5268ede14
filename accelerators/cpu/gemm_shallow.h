// SPDX-License-Identifier: Apache-2.0
// Products of little depth: a panel of b is kept in registers while rows of a pass by, so that c, of which there is
// most, is written as soon as possible. (Tiles would be cleared, stored and asked for as often, and multiply little.)
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_pack.h>
#include <loom/accelerators/cpu/micro_kernel.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace shallow_detail {

inline constexpr int most_steps = 12;  // of k, as many as registers hold of b
inline constexpr int most_vectors = vector_registers == 32 ? 2 : 1;
inline constexpr int64_t rows_ahead = 8;  // c is asked for

// Which lanes of a panel's last vector there are.
template <class C, class T>
struct LastLanes {
  explicit LastLanes(int64_t n) : count(n), mask(n) {}
  [[gnu::always_inline]] void write(C* to, Vec<T> v) const {
    if constexpr (!std::is_same_v<C, T>)
      store_first(to, v, count);
    else if (vector_bytes == 64 || count < lanes<T>)
      store(to, v, mask);
    else
      store(to, v);
  }
  int64_t count;
  FirstLanes<T> mask;
};

template <class E, class S>
[[gnu::always_inline]] inline Vec<SumOf<E>> step_of(const S* a, bool half) {
  if constexpr (is_pair<E>)
    if (half) return broadcast(std::bit_cast<float>(uint32_t{a->bits}));
  return broadcast_step<E>(a);
}

// Columns of b from j on, by steps.
template <class E, int steps, int vectors, class S>
[[gnu::always_inline]] inline void load_panel(Vec<SumOf<E>> (&to)[steps][vectors], const MatrixRef<const S>& b,
                                              int64_t j, int64_t columns) {
  constexpr int64_t n = lanes<SumOf<E>>, width = vectors * n, per_step = is_pair<E> ? 2 : 1;
  const S* const from = b.data + j * b.column_stride;
  if (b.column_stride == 1) {
#pragma GCC unroll 12
    for (int s = 0; s < steps; ++s)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        const S* const at = from + s * per_step * b.row_stride + v * n;
        const S* const next = (s + 1) * per_step <= b.rows ? at + b.row_stride : nullptr;
        to[s][v] = pack_detail::lines_at<false, E>(at, next, v == vectors - 1 ? columns - v * n : n);
      }
    return;
  }
  alignas(64) E packed[(steps + 1) * width] = {};
  pack(packed, width, steps * width, Lines<S>{from, b.column_stride, b.row_stride}, columns, b.rows);
#pragma GCC unroll 12
  for (int s = 0; s < steps; ++s)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) std::memcpy(&to[s][v], packed + s * width + v * n, sizeof(to[s][v]));
}

// A panel of `columns` columns of c from j on, rows [begin, end).
template <class E, int steps, int vectors, class S, class T, class C>
void panel(const ProductArgs<S, T, C>& p, int64_t j, int64_t columns, int64_t begin, int64_t end) {
  constexpr int64_t n = lanes<T>, per_step = is_pair<E> ? 2 : 1;
  Vec<T> b[steps][vectors];
  load_panel<E>(b, p.b, j, columns);
  const LastLanes<C, T> last(columns - (vectors - 1) * n), all(n);
  const bool odd = p.a.columns % per_step != 0;
  const int64_t step = per_step * p.a.column_stride;
  const Vec<T> alpha = broadcast(p.alpha);
  const S* a = p.a.data + begin * p.a.row_stride;
  C* c = p.c.data + begin * p.c.row_stride + j;
  for (int64_t i = begin; i < end; ++i, a += p.a.row_stride, c += p.c.row_stride) {
    Vec<T> sum[vectors] = {};
#pragma GCC unroll 12
    for (int s = 0; s < steps; ++s) {
      const Vec<T> x = step_of<E>(a + s * step, odd && s == steps - 1);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) sum[v] = add_product<E>(x, b[s][v], sum[v]);
    }
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      __builtin_prefetch(c + v * n + rows_ahead * p.c.row_stride, 1);
      const auto& there = v == vectors - 1 ? last : all;
      Vec<T> value = alpha * sum[v];
      if (p.beta != 0) value += broadcast(p.beta) * load_first(c + v * n, there.count);
      if (p.bias != nullptr) {
        const T* const bias = p.bias + i * p.bias_row + (j + v * n) * p.bias_column;
        value += p.bias_column != 0 ? load_first(bias, there.count) : broadcast(*bias);
      }
      there.write(c + v * n, value);
    }
  }
}

template <class S, class T, class C>
using PanelKernel = void (*)(const ProductArgs<S, T, C>&, int64_t, int64_t, int64_t, int64_t);

template <class E, int vectors, class S, class T, class C, int... step>
PanelKernel<S, T, C> kernel(int64_t steps, std::integer_sequence<int, step...>) {
  static constexpr std::array<PanelKernel<S, T, C>, most_steps> kernels{panel<E, step + 1, vectors, S, T, C>...};
  return kernels[static_cast<size_t>(steps - 1)];
}

}  // namespace shallow_detail

template <class T>
inline constexpr int64_t shallow_columns = int64_t{shallow_detail::most_vectors} * lanes<T>;

template <class E, class S, class T, class C>
bool is_shallow_product(const ProductArgs<S, T, C>& p) {
  constexpr int64_t per_step = is_pair<E> ? 2 : 1, enough = 8;  // rows that pay for a panel of b in registers
  if (is_pair<E> && p.a.column_stride != 1) return false;
  return p.group_columns == 0 && p.c.column_stride == 1 && p.bias_column <= 1 && p.c.rows >= enough &&
         p.a.columns > 0 && p.a.columns <= shallow_detail::most_steps * per_step;
}

// Columns [from, to), rows [begin, end).
template <class E, class S, class T, class C>
void shallow_part(const ProductArgs<S, T, C>& p, int64_t from, int64_t to, int64_t begin, int64_t end) {
  using namespace shallow_detail;
  constexpr auto every = std::make_integer_sequence<int, most_steps>();
  constexpr int64_t n = lanes<T>;
  const int64_t steps = ceil_div(p.a.columns, is_pair<E> ? 2 : 1);
  for (int64_t j = from; j < to; j += shallow_columns<T>) {
    const int64_t columns = std::min(shallow_columns<T>, to - j);
    const auto run =
        columns <= n ? kernel<E, 1, S, T, C>(steps, every) : kernel<E, most_vectors, S, T, C>(steps, every);
    run(p, j, columns, begin, end);
  }
}

// In the calling thread and in others: these share rows, or columns where there are more of them.
template <class E, class S, class T, class C>
void shallow_product(const ProductArgs<S, T, C>& p) {
  constexpr int64_t width = shallow_columns<T>;
  const int64_t m = p.c.rows, n = p.c.columns, flops = 2 * p.a.columns;
  if (m >= n)
    return parallel_for(m, grain_of(flops * n, parallel_flops),
                        [&](int64_t begin, int64_t end) { shallow_part<E>(p, 0, n, begin, end); });
  parallel_for(ceil_div(n, width), grain_of(flops * m * width, parallel_flops),
               [&](int64_t begin, int64_t end) { shallow_part<E>(p, begin * width, std::min(n, end * width), 0, m); });
}

}  // namespace loom::cpu
