// SPDX-License-Identifier: Apache-2.0
// Sums of exp(x - largest of x) along rows.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/cpu/vector_exp.h>

namespace loom::cpu {

// The sum of exp(x[i] - top), top >= x[i]. kept: y[i] = exp(x[i] - top), else y is not written.
// on_the_way(i, count) is called before elements from i on are read, a few vectors of them.
template <bool kept, class T, class F>
  requires(has_table_exp<T>)
double sum_of_exp(T* y, const T* x, int64_t n, T top, const F& on_the_way) {
  constexpr int64_t width = lanes<T>, ways = 4, sums = vector_registers >= 32 ? 4 : 2, piece = 1024;
  const auto add = [](auto a, auto b) { return a + b; };
  const Vec<T> highest = broadcast(top);
  const Vec<T> least = loaded(broadcast(least_power<T>));  // of a constant g++ does not see that it makes a maximum
  Vec<double> total{};
  for (int64_t begin = 0; begin < n; begin += piece) {
    const int64_t end = std::min(n, begin + piece);
    Vec<T> sum[ways] = {};
    const auto take = [&](int64_t at, int64_t way) __attribute__((always_inline)) {
      const Vec<T> below = load(x + at) - highest;
      if constexpr (kept) {
        const Vec<T> power = exp_or_zero<T>(below);
        store(y + at, power);
        sum[way % sums] += power;
      } else {
        sum[way % sums] = add_exp<T>(sum[way % sums], below, least);
      }
    };
    int64_t i = begin;
    for (; i + ways * width <= end; i += ways * width) {
      on_the_way(i, ways * width);
#pragma GCC unroll 4
      for (int64_t way = 0; way < ways; ++way) take(i + way * width, way);
    }
    on_the_way(i, end - i);
    for (; i + width <= end; i += width) take(i, 0);
    if (i < end) {
      const FirstLanes<T> rest(end - i);
      const Vec<T> power = first_or(exp_or_zero<T>(load(x + i, rest) - highest), Vec<T>{}, end - i);
      if constexpr (kept) store(y + i, power, rest);
      sum[1] += power;
    }
    total += widened((sum[0] + sum[1]) + (sum[2] + sum[3]), add);
  }
  return across(total, add);
}

template <bool kept, class T, class F>
double sum_of_exp(T* y, const T* x, int64_t n, T top, const F& on_the_way) {
  constexpr int64_t piece = 512, step = 64;
  alignas(64) T powers[piece];
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += piece) {
    const int64_t count = std::min(piece, n - begin);
    T* __restrict const to = kept ? y + begin : powers;
    const T* __restrict const from = x + begin;
    for (int64_t first = 0; first < count; first += step) {
      const int64_t last = std::min(count, first + step);
      on_the_way(begin + first, last - first);
      for (int64_t i = first; i < last; ++i) to[i] = vector_math::exp_below(from[i] - top);
    }
    total += sums_of<T, 1>(
        count, [](Vec<T> v) { return std::array{v}; }, to)[0];
  }
  return total;
}

template <bool kept, class T>
double sum_of_exp(T* y, const T* x, int64_t n, T top) {
  return sum_of_exp<kept>(y, x, n, top, [](int64_t, int64_t) {});
}

// y[i] = factor * exp(x[i] - shift) - less, where no x[i] is above shift but by little. y may be x.
template <class T>
void scaled_exp(T* y, const T* x, int64_t n, T shift, T factor, T less) {
  if constexpr (has_table_exp<T>) {
    constexpr int64_t width = lanes<T>, ways = 4;
    const auto of = [=](Vec<T> v) __attribute__((always_inline)) { return factor * exp_or_zero<T>(v - shift) - less; };
    int64_t i = 0;
    for (; i + ways * width <= n; i += ways * width)
#pragma GCC unroll 4
      for (int64_t way = 0; way < ways; ++way) store(y + i + way * width, of(load(x + i + way * width)));
    for (; i + width <= n; i += width) store(y + i, of(load(x + i)));
    if (i == n) return;
    const FirstLanes<T> rest(n - i);
    store(y + i, of(load(x + i, rest)), rest);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = factor * vector_math::exp_below(x[i] - shift) - less;
  }
}

// The row that follows is asked for line by line while exp of this one is computed: memory would stand still else. Into
// the first cache where it leaves room there.
template <class S>
class RowAfter {
 public:
  // x: null if there is none
  RowAfter(const S* x, int64_t n) : x_(n * item <= far ? x : nullptr), first_(n * item <= near) {}
  [[gnu::always_inline]] void operator()(int64_t i, int64_t count) const {
    if (x_ == nullptr) return;
    const char* const p = reinterpret_cast<const char*>(x_ + i);
    for (int64_t b = 0; b < count * item; b += 64) first_ ? prefetch(p + b) : prefetch_second(p + b);
  }

 private:
  static constexpr int64_t item = sizeof(S), near = 8192, far = int64_t{1} << 18;  // bytes
  const S* x_;
  bool first_;
};

template <class T>
struct ExpRow {
  const T* x;
  T top;       // the largest of them
  double sum;  // of exp(x[i] - top)
};

// kept: exp(x[i] - top) go to y.
template <bool kept, class T, class S>
ExpRow<T> exp_row(T* y, const T* x, int64_t n, const RowAfter<S>& after) {
  const T top = largest(x, n);
  return {x, top, sum_of_exp<kept>(y, x, n, top, after)};
}

}  // namespace loom::cpu
