// SPDX-License-Identifier: Apache-2.0
// What a reduction does with a run of elements: along a row, or across rows side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/reduce.h>
#include <loom/accelerators/cpu/sums.h>
#include <loom/accelerators/dtype.h>

namespace loom::cpu {

template <class T>
using Total = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;

// Kernels read elements of S and compute in T.
template <class S>
struct Kernels {
  using T = compute_type<S>;
  // total = combine(total, all of x).
  void (*row)(Total<T>& total, const S* x, int64_t n);
  // totals[i] = all of row i, for `count` rows.
  void (*rows)(Total<T>* totals, const S* x, int64_t stride, int64_t count, int64_t n);
  // lanes[j] = combine(lanes[j], x[j], x[j + stride], ...) for `rows` rows.
  void (*columns)(T* lanes, const S* x, int64_t stride, int64_t rows, int64_t n);
  // totals[j] = combine(totals[j], lanes[j]), and the lanes start anew.
  void (*fold)(Total<T>* totals, T* lanes, int64_t n);
  void (*merge)(Total<T>* totals, const Total<T>* others, int64_t n);
  Total<T> total;
  T lane;
};

// Vectors side by side hide the latency of addition; a piece of them is summed in T, the pieces in double.
template <Reduce op, class S>
  requires std::is_floating_point_v<compute_type<S>>
double reduce_row(const S* x, int64_t n) {
  using T = compute_type<S>;
  constexpr int64_t width = lanes<T>, ways = vector_registers >= 32 ? 8 : 4, piece = 8 * ways * width;
  const auto join = [](auto a, auto b) { return combine<op>(a, b); };
  const Vec<T> none = broadcast(neutral<op, T>());
  Vec<double> total = broadcast(neutral<op, double>());
  for (int64_t begin = 0; begin < n; begin += piece) {
    const int64_t end = std::min(n, begin + piece);
    Vec<T> sum[ways];
    for (auto& s : sum) s = none;
    int64_t i = begin;
    for (; i + ways * width <= end; i += ways * width)
#pragma GCC unroll 8
      for (int64_t w = 0; w < ways; ++w) sum[w] = join(sum[w], lift<op>(load(x + i + w * width)));
    for (; i + width <= end; i += width) sum[0] = join(sum[0], lift<op>(load(x + i)));
    if (i < end) sum[1] = join(sum[1], first_or(lift<op>(load_first(x + i, end - i)), none, end - i));
#pragma GCC unroll 4
    for (int64_t half = ways / 2; half > 0; half /= 2)
#pragma GCC unroll 4
      for (int64_t w = 0; w < half; ++w) sum[w] = join(sum[w], sum[w + half]);
    total = join(total, widened(sum[0], join));
  }
  return across(total, join);
}

template <Reduce op, class S>
int64_t reduce_row(const S* x, int64_t n) {
  int64_t total = neutral<op, int64_t>();
  for (int64_t i = 0; i < n; i += block)
    total = combine<op, int64_t>(total, static_cast<int64_t>(reduce_block<op, S>(x + i, std::min(block, n - i))));
  return total;
}

template <Reduce op, class S>
constexpr Kernels<S> kernels() {
  using T = compute_type<S>;
  using A = Total<T>;
  return {[](A& total, const S* x, int64_t n) { total = combine<op, A>(total, reduce_row<op, S>(x, n)); },
          [](A* totals, const S* x, int64_t stride, int64_t count, int64_t n) {
            for (int64_t i = 0; i < count; ++i) totals[i] = reduce_row<op, S>(x + i * stride, n);
          },
          [](T* __restrict lanes, const S* __restrict x, int64_t stride, int64_t rows, int64_t n) {
            const auto at = [=](int64_t r, int64_t j) { return lift<op, T>(static_cast<T>(x[r * stride + j])); };
            int64_t r = 0;
            for (; r + 4 <= rows; r += 4)  // four streams from memory; the lanes are touched once for all of them
              for (int64_t j = 0; j < n; ++j)
                lanes[j] = combine<op, T>(lanes[j], combine<op, T>(combine<op, T>(at(r, j), at(r + 1, j)),
                                                                   combine<op, T>(at(r + 2, j), at(r + 3, j))));
            for (; r < rows; ++r)
              for (int64_t j = 0; j < n; ++j) lanes[j] = combine<op, T>(lanes[j], at(r, j));
          },
          [](A* totals, T* lanes, int64_t n) {
            for (int64_t j = 0; j < n; ++j) {
              totals[j] = combine<op, A>(totals[j], static_cast<A>(lanes[j]));
              lanes[j] = neutral<op, T>();
            }
          },
          [](A* totals, const A* others, int64_t n) {
            for (int64_t j = 0; j < n; ++j) totals[j] = combine<op, A>(totals[j], others[j]);
          },
          neutral<op, A>(),
          neutral<op, T>()};
}

template <class S>
Kernels<S> kernels_of(Reduce op) {
  if constexpr (std::is_same_v<S, bool>) {
    return op == Reduce::all ? kernels<Reduce::all, S>() : kernels<Reduce::any, S>();
  } else {
    switch (op) {
      case Reduce::prod:
        return kernels<Reduce::prod, S>();
      case Reduce::max:
        return kernels<Reduce::max, S>();
      case Reduce::min:
        return kernels<Reduce::min, S>();
      case Reduce::sum_of_squares:
        return kernels<Reduce::sum_of_squares, S>();
      default:
        return kernels<Reduce::sum, S>();
    }
  }
}

}  // namespace loom::cpu
