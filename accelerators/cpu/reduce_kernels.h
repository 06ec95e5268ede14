// SPDX-License-Identifier: Apache-2.0
// What a reduction does with a run of elements: along a row, or across rows side by side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/reduce.h>
#include <loom/accelerators/cpu/vector_reduce.h>
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
  // total = combine(total, all of `count` rows).
  void (*all_rows)(Total<T>& total, const S* x, int64_t stride, int64_t count, int64_t n);
  // lanes[j] = combine(lanes[j], x[j], x[j + stride], ...) for `rows` rows; far: x does not stay in the caches.
  void (*columns)(T* lanes, const S* x, int64_t stride, int64_t rows, int64_t n, bool far);
  // totals[j] = combine(totals[j], lanes[j]), and the lanes start anew.
  void (*fold)(Total<T>* totals, T* lanes, int64_t n);
  void (*merge)(Total<T>* totals, const Total<T>* others, int64_t n);
  Total<T> total;
  T lane;
};

template <Reduce op, class S>
int64_t reduce_row(const S* x, int64_t n) {
  int64_t total = neutral<op, int64_t>();
  for (int64_t i = 0; i < n; i += block)
    total = combine<op, int64_t>(total, static_cast<int64_t>(reduce_block<op, S>(x + i, std::min(block, n - i))));
  return total;
}

template <Reduce op, class S>
void reduce_columns(compute_type<S>* __restrict lanes, const S* __restrict x, int64_t stride, int64_t rows, int64_t n,
                    bool /*far*/) {
  using T = compute_type<S>;
  for (int64_t r = 0; r < rows; ++r, x += stride)
    for (int64_t j = 0; j < n; ++j) lanes[j] = combine<op, T>(lanes[j], lift<op, T>(static_cast<T>(x[j])));
}

template <Reduce op, class S>
constexpr Kernels<S> kernels() {
  using T = compute_type<S>;
  using A = Total<T>;
  Kernels<S> k{};
  if constexpr (std::is_floating_point_v<T>) {
    k.row = vector_row<op, S>;
    k.rows = vector_rows<op, S>;
    k.all_rows = vector_all_rows<op, S>;
    k.columns = vector_columns<op, S>;
  } else {
    k.row = [](A& total, const S* x, int64_t n) { total = combine<op, A>(total, reduce_row<op, S>(x, n)); };
    k.rows = [](A* totals, const S* x, int64_t stride, int64_t count, int64_t n) {
      for (int64_t i = 0; i < count; ++i) totals[i] = reduce_row<op, S>(x + i * stride, n);
    };
    k.all_rows = [](A& total, const S* x, int64_t stride, int64_t count, int64_t n) {
      for (int64_t i = 0; i < count; ++i) total = combine<op, A>(total, reduce_row<op, S>(x + i * stride, n));
    };
    k.columns = reduce_columns<op, S>;
  }
  k.fold = [](A* totals, T* lanes, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
      totals[j] = combine<op, A>(totals[j], static_cast<A>(lanes[j]));
      lanes[j] = neutral<op, T>();
    }
  };
  k.merge = [](A* totals, const A* others, int64_t n) {
    for (int64_t j = 0; j < n; ++j) totals[j] = combine<op, A>(totals[j], others[j]);
  };
  k.total = neutral<op, A>();
  k.lane = neutral<op, T>();
  return k;
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
