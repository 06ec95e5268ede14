// SPDX-License-Identifier: Apache-2.0
// Sums over arrays, in vectors: a few side by side to hide the latency of addition, kept in T for a piece of the array
// and in double from there on.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

template <class V, int... I>
[[gnu::always_inline]] inline auto lanes_from(V v, int first, std::integer_sequence<int, I...>) {
  constexpr int n = sizeof...(I);
  return first == 0 ? __builtin_shufflevector(v, v, I...) : __builtin_shufflevector(v, v, (n + I)...);
}
// All lanes of v put together in pairs, halves first.
template <class V, class F>
[[gnu::always_inline]] inline auto across(V v, const F& f) {
  constexpr int n = sizeof(V) / sizeof(v[0]);
  if constexpr (sizeof(V) > 16) {
    using Half = std::make_integer_sequence<int, n / 2>;
    return across(f(lanes_from(v, 0, Half()), lanes_from(v, n / 2, Half())), f);
  } else {
    auto result = v[0];
    for (int i = 1; i < n; ++i) result = f(result, v[i]);
    return result;
  }
}

// From each stretch of `group` lanes of a and then b its first half or, with first == group / 2, its second.
template <int group, class V, int... I>
[[gnu::always_inline]] inline V half_groups(V a, V b, int first, std::integer_sequence<int, I...>) {
  constexpr int half = group / 2;
  return first == 0 ? __builtin_shufflevector(a, b, (I / half * group + I % half)...)
                    : __builtin_shufflevector(a, b, (I / half * group + I % half + half)...);
}
// across() of as many vectors as one has lanes, side by side: rows[0] gets the result of rows[i] in lane i.
template <class V, class F, int group = static_cast<int>(sizeof(V) / sizeof(V{}[0]))>
[[gnu::always_inline]] inline void across_each(V* rows, const F& f) {
  using All = std::make_integer_sequence<int, static_cast<int>(sizeof(V) / sizeof(V{}[0]))>;
  if constexpr (group > 1) {
#pragma GCC unroll 8
    for (int i = 0; i < group / 2; ++i)
      rows[i] = f(half_groups<group>(rows[2 * i], rows[2 * i + 1], 0, All()),
                  half_groups<group>(rows[2 * i], rows[2 * i + 1], group / 2, All()));
    across_each<V, F, group / 2>(rows, f);
  }
}

// The halves of v in double, put together; a vector of double stays what it is.
template <class F>
[[gnu::always_inline]] inline Vec<double> widened(Vec<double> v, const F&) {
  return v;
}
template <class F>
[[gnu::always_inline]] inline Vec<double> widened(Vec<float> v, const F& f) {
  using Half = std::make_integer_sequence<int, lanes<double>>;
  return f(__builtin_convertvector(lanes_from(v, 0, Half()), Vec<double>),
           __builtin_convertvector(lanes_from(v, lanes<double>, Half()), Vec<double>));
}

// v in the first n lanes, `other` in the rest.
template <class V>
[[gnu::always_inline]] inline V first_or(V v, V other, int64_t n) {
  using Lane = std::conditional_t<sizeof(v[0]) == 4, int32_t, int64_t>;
  Vec<Lane> index;
  for (int i = 0; i < lanes<Lane>; ++i) index[i] = i;
  return index < broadcast(static_cast<Lane>(n)) ? v : other;
}

// f(vectors of each x) gives `count` vectors of terms; the sums of all terms over n elements.
template <class T, size_t count, class F, class... S>
[[gnu::always_inline]] inline std::array<double, count> sums_of(int64_t n, const F& f, const S*... x) {
  constexpr int64_t width = lanes<T>, ways = 4, piece = 2048;
  const auto add = [](auto a, auto b) { return a + b; };
  Vec<double> total[count] = {};
  for (int64_t begin = 0; begin < n; begin += piece) {
    const int64_t end = std::min(n, begin + piece);
    Vec<T> sum[ways][count] = {};
    int64_t i = begin;
    for (; i + ways * width <= end; i += ways * width)
#pragma GCC unroll 4
      for (int64_t way = 0; way < ways; ++way) {
        const std::array<Vec<T>, count> terms = f(load(x + i + way * width)...);
#pragma GCC unroll 4
        for (size_t k = 0; k < count; ++k) sum[way][k] += terms[k];
      }
    for (; i + width <= end; i += width) {
      const std::array<Vec<T>, count> terms = f(load(x + i)...);
      for (size_t k = 0; k < count; ++k) sum[0][k] += terms[k];
    }
    if (i < end) {
      const std::array<Vec<T>, count> terms = f(load_first(x + i, end - i)...);
      for (size_t k = 0; k < count; ++k) sum[1][k] += first_or(terms[k], Vec<T>{}, end - i);
    }
    for (size_t k = 0; k < count; ++k) total[k] += widened((sum[0][k] + sum[1][k]) + (sum[2][k] + sum[3][k]), add);
  }
  std::array<double, count> result;
  for (size_t k = 0; k < count; ++k) result[k] = across(total[k], add);
  return result;
}

}  // namespace loom::cpu
