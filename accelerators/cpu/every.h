// SPDX-License-Identifier: Apache-2.0
// Every k-th element of memory as a run: whole vectors are loaded, and what is wanted of them is put together.
#pragma once

#include <cstdint>
#include <utility>

#include <loom/accelerators/cpu/shuffle.h>

namespace loom::cpu {

namespace every_detail {

// Of k vectors that follow each other, the elements k i: from the first two, then from each of the others.
template <int k, class V, int... I>
[[gnu::always_inline]] inline V of_two(V first, V second, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(first, second, (k * I < 2 * n ? k * I : 0)...);
}
template <int k, int vector, class V, int... I>
[[gnu::always_inline]] inline V with(V some, V next, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  return __builtin_shufflevector(some, next, (k * I / n == vector ? n + k * I % n : I)...);
}
template <int k, int vector, class T>
[[gnu::always_inline]] inline Vec<T> with_rest(Vec<T> some, const T* x) {
  if constexpr (vector == k)
    return some;
  else
    return with_rest<k, vector + 1>(with<k, vector>(some, load(x + vector * lanes<T>), LaneSequence<Vec<T>>()), x);
}

}  // namespace every_detail

// x[0], x[k], x[2 k] ..: a vector of them; k of memory are read.
template <int k, class T>
[[gnu::always_inline]] inline Vec<T> load_every(const T* x) {
  const Vec<T> some = every_detail::of_two<k>(load(x), load(x + lanes<T>), LaneSequence<Vec<T>>());
  return every_detail::with_rest<k, 2>(some, x);
}

// y[i] = x[k i] for the first whole vectors of n elements; how many elements these are. No more of x is read than what
// lies before the last of the n.
template <int k, class T>
int64_t take_every(char* y, const char* x, int64_t n) {
  constexpr int64_t item = sizeof(T), ahead = 2048;
  constexpr bool asks = vector_bytes > 16;  // with short vectors the processor asks for memory early enough by itself
  int64_t i = 0;
  for (; i + lanes<T> < n; i += lanes<T>) {
    const char* const from = x + k * i * item;
    if constexpr (asks)
      for (int64_t b = 0; b < k * vector_bytes; b += 64)
        __builtin_prefetch(from + ahead + b, 0, 2);  // the second cache
    store(y + i * item, load_every<k>(reinterpret_cast<const T*>(from)));
  }
  return i;
}

}  // namespace loom::cpu
