// What kernels that walk rows share: exp, sums and maxima in a form that compilers vectorise without -ffast-math.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu {

inline float vector_exp(float x) { return vector_math::exp(x); }
inline double vector_exp(double x) { return std::exp(x); }

// Sum of f(0) ... f(n - 1), each a T: lanes within blocks, the blocks in double. f may also write element i. The lanes
// are written out: g++ loses the vector form of an OpenMP reduction over a lambda in some of its callers.
template <class T, class F>
double blocked_sum(int64_t n, const F f) {
  constexpr int64_t length = 512, lanes = 16;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += length) {
    const int64_t end = begin + length < n ? begin + length : n;
    T sum[lanes] = {};
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes)
      for (int64_t l = 0; l < lanes; ++l) sum[l] += f(i + l);
    for (; i < end; ++i) sum[0] += f(i);
    for (int64_t half = lanes / 2; half > 0; half /= 2)
      for (int64_t l = 0; l < half; ++l) sum[l] += sum[l + half];
    total += static_cast<double>(sum[0]);
  }
  return total;
}

// The largest of x[0 .. n), -infinity for n = 0. NaNs may be passed over: what follows (exp) meets them again.
template <class T>
T largest(const T* x, int64_t n) {
  constexpr int64_t lanes =
      32;  // written out: clang does not vectorise a maximum that must respect NaN (g++ unrolls 16)
  T best[lanes];
  for (T& b : best) b = -std::numeric_limits<T>::infinity();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t l = 0; l < lanes; ++l) best[l] = x[i + l] > best[l] ? x[i + l] : best[l];
  for (int64_t l = 0; i < n; ++i, ++l) best[l] = x[i] > best[l] ? x[i] : best[l];
  for (int64_t half = lanes / 2; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) best[l] = best[l + half] > best[l] ? best[l + half] : best[l];
  return best[0];
}

struct Moments {
  double mean, variance;
};

// Mean and biased variance over `runs` stretches of n elements, `step` apart. The second pass is taken around the first
// one's mean and corrected by what that mean was off, so an offset far above the deviation does no harm.
template <class T>
Moments moments(const T* x, int64_t runs, int64_t n, int64_t step) {
  const auto count = static_cast<double>(runs * n);
  double sum = 0, off = 0, squares = 0;
  for (int64_t r = 0; r < runs; ++r) sum += blocked_sum<T>(n, [row = x + r * step](int64_t i) { return row[i]; });
  const T around = static_cast<T>(sum / count);
  for (int64_t r = 0; r < runs; ++r) {
    const T* row = x + r * step;
    off += blocked_sum<T>(n, [=](int64_t i) { return row[i] - around; });
    squares += blocked_sum<T>(n, [=](int64_t i) { return (row[i] - around) * (row[i] - around); });
  }
  off /= count;
  return {static_cast<double>(around) + off, std::max(0.0, squares / count - off * off)};
}

template <class T>
T inverse_deviation(double variance, double eps) {
  return static_cast<T>(1 / std::sqrt(variance + eps));
}

}  // namespace loom::cpu
