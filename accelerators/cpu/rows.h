// What kernels that walk rows share: exp, sums and maxima in a form that compilers vectorise without -ffast-math.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include <loom/accelerators/cpu/sums.h>
#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu {

template <int64_t lanes, class T, class F>
[[gnu::always_inline]] inline void add_lanes(T* sum, int64_t i, const F& f) {
  for (int64_t l = 0; l < lanes; ++l) sum[l] += f(i + l);
}

// Sums of f(0) ... f(n - 1) for each f, each a T: lanes within blocks, the blocks in double. The first f may also write
// element i. The lanes are written out: g++ loses the vector form of an OpenMP reduction over a lambda in some callers.
template <class T, class... F>
std::array<double, sizeof...(F)> blocked_sums(int64_t n, const F&... f) {
  constexpr int64_t length = 1024, lanes = 32;
  constexpr size_t count = sizeof...(F);
  std::array<double, count> total{};
  for (int64_t begin = 0; begin < n; begin += length) {
    const int64_t end = begin + length < n ? begin + length : n;
    T sum[count][lanes] = {};
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
      size_t k = 0;
      ((add_lanes<lanes>(sum[k++], i, f)), ...);
    }
    for (; i < end; ++i) {
      size_t k = 0;
      ((sum[k++][i % lanes] += f(i)), ...);
    }
    for (size_t k = 0; k < count; ++k) {
      for (int64_t half = lanes / 2; half > 0; half /= 2)
        for (int64_t l = 0; l < half; ++l) sum[k][l] += sum[k][l + half];
      total[k] += static_cast<double>(sum[k][0]);
    }
  }
  return total;
}

template <class T, class F>
double blocked_sum(int64_t n, const F& f) {
  return blocked_sums<T>(n, f)[0];
}

// The largest of x[0 .. n), -infinity for n = 0. NaNs may be passed over: what follows (exp) meets them again.
template <class T>
T largest(const T* x, int64_t n) {
  constexpr int64_t width = lanes<T>, ways = 4;
  const auto larger = [](auto a, auto b) { return b > a ? b : a; };
  const Vec<T> none = broadcast(-std::numeric_limits<T>::infinity());
  Vec<T> best[ways] = {none, none, none, none};
  int64_t i = 0;
  for (; i + ways * width <= n; i += ways * width)
#pragma GCC unroll 4
    for (int64_t w = 0; w < ways; ++w) best[w] = larger(best[w], load(x + i + w * width));
  for (; i + width <= n; i += width) best[0] = larger(best[0], load(x + i));
  if (i < n) best[1] = larger(best[1], first_or(load_first(x + i, n - i), none, n - i));
  return across(larger(larger(best[0], best[1]), larger(best[2], best[3])), larger);
}

// Rows too short to fill vectors are turned, a tile at a time, so that vectors lie across them.
inline constexpr int64_t short_row = 32, tile_rows = 64;

// tile[i][r] = x[r][i]
template <class T>
void turn_rows(T* tile, const T* x, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) tile[i * tile_rows + r] = x[r * n + i];
}
template <class T>
void turn_back(T* y, const T* tile, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < n; ++i) y[r * n + i] = tile[i * tile_rows + r];
}

struct Moments {
  double mean, variance;
};

// Mean and biased variance of n elements, in one pass of sums around the first of them; where that lies so far from the
// mean that the variance would lose digits, in a second one around the mean.
template <class T>
Moments moments(const T* x, int64_t n) {
  const auto count = static_cast<double>(n);
  T around = x[0];
  for (bool again = false;; again = true) {
    const auto sums = sums_of<T, 2>(
        n,
        [middle = broadcast(around)](Vec<T> v) {
          const Vec<T> d = v - middle;
          return std::array{d, d * d};
        },
        x);
    const double off = sums[0] / count, variance = std::max(0.0, sums[1] / count - off * off);
    const double mean = static_cast<double>(around) + off;
    if (again || !(off * off > 16 * variance)) return {mean, variance};
    around = static_cast<T>(mean);
  }
}

template <class T>
T inverse_deviation(double variance, double eps) {
  return static_cast<T>(1 / std::sqrt(variance + eps));
}

}  // namespace loom::cpu
