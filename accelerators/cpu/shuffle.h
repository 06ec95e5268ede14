// SPDX-License-Identifier: Apache-2.0
// Rearranging vectors: lanes of two taken apart and put together.
#pragma once

#include <utility>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

namespace shuffle_detail {

template <class V, int... I>
[[gnu::always_inline]] inline V every_second(V low, V high, int first, std::integer_sequence<int, I...>) {
  return first == 0 ? __builtin_shufflevector(low, high, (2 * I)...)
                    : __builtin_shufflevector(low, high, (2 * I + 1)...);
}
template <class V, int... I>
[[gnu::always_inline]] inline V backwards(V v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, (static_cast<int>(sizeof...(I)) - 1 - I)...);
}
template <class V, int... I>
[[gnu::always_inline]] inline V alternate(V a, V b, bool upper, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  return upper ? __builtin_shufflevector(a, b, (n / 2 + I / 2 + I % 2 * n)...)
               : __builtin_shufflevector(a, b, (I / 2 + I % 2 * n)...);
}

}  // namespace shuffle_detail

template <class V>
using LaneSequence = std::make_integer_sequence<int, static_cast<int>(sizeof(V) / sizeof(V{}[0]))>;

// Lanes 0, 2, 4 .. of low and then high; lanes 1, 3, 5 ..
template <class V>
[[gnu::always_inline]] inline V evens(V low, V high) {
  return shuffle_detail::every_second(low, high, 0, LaneSequence<V>());
}
template <class V>
[[gnu::always_inline]] inline V odds(V low, V high) {
  return shuffle_detail::every_second(low, high, 1, LaneSequence<V>());
}
// The last lane first.
template <class V>
[[gnu::always_inline]] inline V reversed(V v) {
  return shuffle_detail::backwards(v, LaneSequence<V>());
}
// a0 b0 a1 b1 .. : the first vector of it, and the second.
template <class V>
[[gnu::always_inline]] inline V interleave_low(V a, V b) {
  return shuffle_detail::alternate(a, b, false, LaneSequence<V>());
}
template <class V>
[[gnu::always_inline]] inline V interleave_high(V a, V b) {
  return shuffle_detail::alternate(a, b, true, LaneSequence<V>());
}

// Turns a square of lanes<T> vectors over: lane j of vector i becomes lane i of vector j.
template <class T>
[[gnu::always_inline]] inline void transpose(Vec<T> (&rows)[lanes<T>]) {
  constexpr int n = lanes<T>;
#pragma GCC unroll 4
  for (int stage = 1; stage < n; stage *= 2) {
    Vec<T> next[n];
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + n / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + n / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = next[i];
  }
}

}  // namespace loom::cpu
