// SPDX-License-Identifier: Apache-2.0
// What attention does with a row of scores, of which the first `limit` count. Rows are as long as whole vectors; what
// lies between `limit` and `end` becomes 0.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <loom/accelerators/cpu/sums.h>
#include <loom/accelerators/cpu/vector_exp.h>
#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu {

// f(place, the vector with `other` where elements do not count) for all vectors with elements that count.
template <class T, class F>
[[gnu::always_inline]] inline void over_counted(const T* s, int64_t limit, T other, const F& f) {
  constexpr int64_t n = lanes<T>;
  int64_t j = 0;
  for (; j + n <= limit; j += n) f(j, load(s + j));
  if (j < limit) f(j, first_or(load(s + j), broadcast(other), limit - j));
}

// The largest; NaNs may be passed over: exp meets them again.
template <class T>
[[gnu::always_inline]] inline T largest_counted(const T* s, int64_t limit) {
  constexpr T none = -std::numeric_limits<T>::infinity();
  const auto larger = [](auto a, auto b) { return b > a ? b : a; };
  Vec<T> best = broadcast(none);
  over_counted(
      s, limit, none, [&](int64_t, Vec<T> v) __attribute__((always_inline)) { best = larger(best, v); });
  return across(best, larger);
}

// exp of vectors that are at most 0, or little more.
template <class T>
[[gnu::always_inline]] inline Vec<T> exp_of_vector(Vec<T> x) {
  if constexpr (has_table_exp<T>) {
    return exp_or_zero<T>(x);
  } else {
    T each[lanes<T>];
    store(each, x);
    for (int i = 0; i < lanes<T>; ++i) each[i] = vector_math::exp_below(each[i]);
    return load(each);
  }
}

// s becomes exp(s - top); their sum.
template <class T>
[[gnu::always_inline]] inline T exp_counted(T* s, int64_t limit, int64_t end, T top) {
  Vec<T> sum{};
  over_counted(
      s, limit, -std::numeric_limits<T>::infinity(), [&](int64_t j, Vec<T> v) __attribute__((always_inline)) {
        const Vec<T> power = exp_of_vector<T>(v - broadcast(top));
        store(s + j, power);
        sum += power;
      });
  for (int64_t j = (std::max<int64_t>(limit, 0) + lanes<T> - 1) / lanes<T> * lanes<T>; j < end; j += lanes<T>)
    store(s + j, Vec<T>{});
  return across(sum, [](auto a, auto b) { return a + b; });
}

// s becomes the weights exp(s - lse), d, gradients of weights, becomes weight * (d - rest), of scores.
template <class T>
[[gnu::always_inline]] inline void gradient_counted(T* s, T* d, int64_t limit, int64_t end, T lse, T rest) {
  over_counted(
      s, limit, -std::numeric_limits<T>::infinity(), [&](int64_t j, Vec<T> v) __attribute__((always_inline)) {
        const Vec<T> weight = exp_of_vector<T>(v - broadcast(lse));
        store(s + j, weight);
        store(d + j, weight * (load(d + j) - broadcast(rest)));
      });
  for (int64_t j = (std::max<int64_t>(limit, 0) + lanes<T> - 1) / lanes<T> * lanes<T>; j < end; j += lanes<T>) {
    store(s + j, Vec<T>{});
    store(d + j, Vec<T>{});
  }
}

// sum(x[j] * y[j])
template <class T>
[[gnu::always_inline]] inline T dot_of_rows(const T* x, const T* y, int64_t n) {
  Vec<T> sum{};
  int64_t j = 0;
  for (; j + lanes<T> <= n; j += lanes<T>) sum = fma(load(x + j), load(y + j), sum);
  if (j < n) sum = fma(load_first(x + j, n - j), load_first(y + j, n - j), sum);
  return across(sum, [](auto a, auto b) { return a + b; });
}

}  // namespace loom::cpu
