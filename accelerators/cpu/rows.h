// What kernels that walk rows share: exp, sums and maxima in a form that compilers vectorise without -ffast-math.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu {

inline float vector_exp(float x) { return vector_math::exp(x); }
inline double vector_exp(double x) { return std::exp(x); }

// Sum of f(0) ... f(n - 1), each a T: vector lanes within blocks, the blocks in double. f may also write element i.
template <class T, class F>
double blocked_sum(int64_t n, const F& f) {
  constexpr int64_t length = 512;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += length) {
    const int64_t end = begin + length < n ? begin + length : n;
    T sum = 0;
    if constexpr (std::is_same_v<T, double>) {  // its exp is a call: clang would warn that it cannot obey the pragma
      for (int64_t i = begin; i < end; ++i) sum += f(i);
    } else {
#pragma omp simd reduction(+ : sum)
      for (int64_t i = begin; i < end; ++i) sum += f(i);
    }
    total += static_cast<double>(sum);
  }
  return total;
}

// The largest of x[0 .. n), -infinity for n = 0. NaNs may be passed over: what follows (exp) meets them again.
template <class T>
T largest(const T* x, int64_t n) {
  constexpr int64_t lanes = 16;  // written out: clang does not vectorise a maximum that must respect NaN
  T best[lanes];
  for (T& b : best) b = -std::numeric_limits<T>::infinity();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t l = 0; l < lanes; ++l) best[l] = x[i + l] > best[l] ? x[i + l] : best[l];
  for (; i < n; ++i) best[0] = x[i] > best[0] ? x[i] : best[0];
  for (int64_t l = 1; l < lanes; ++l) best[0] = best[l] > best[0] ? best[l] : best[0];
  return best[0];
}

}  // namespace loom::cpu
