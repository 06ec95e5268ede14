// The arithmetic of reductions, and how their elements are read.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/rows.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// Numbers of type T become a State, which finish() makes a result of; count: how many there were, for means.
template <Reduce op, class Number>
struct Fold {
  using T = Number;
  using State = T;
  using Limits = std::numeric_limits<T>;

  static __device__ State none() {
    if constexpr (op == Reduce::prod)
      return T(1);
    else if constexpr (op == Reduce::max)
      return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
    else if constexpr (op == Reduce::min)
      return Limits::has_infinity ? Limits::infinity() : Limits::max();
    else
      return T(0);
  }
  // NaN wins; integers wrap.
  static __device__ State join(State a, State b) {
    if constexpr (op == Reduce::max)
      return b > a || b != b ? b : a;
    else if constexpr (op == Reduce::min)
      return b < a || b != b ? b : a;
    else if constexpr (std::is_integral_v<T>) {
      const auto u = static_cast<uint64_t>(a), v = static_cast<uint64_t>(b);
      return static_cast<T>(op == Reduce::prod ? u * v : u + v);
    } else {
      return op == Reduce::prod ? a * b : a + b;
    }
  }
  static __device__ void add(State& total, T x) {
    if constexpr (op == Reduce::sum_of_squares)
      total = join(total,
                   std::is_integral_v<T> ? static_cast<T>(static_cast<uint64_t>(x) * static_cast<uint64_t>(x)) : x * x);
    else
      total = join(total, x);
  }
  static __device__ T finish(State total, T count) {
    if constexpr (op == Reduce::mean)
      return total / count;
    else
      return total;
  }
};

template <Reduce op, class Number>
  requires(op == Reduce::all || op == Reduce::any)
struct Fold<op, Number> {
  using T = Number;
  using State = int32_t;
  static __device__ State none() { return op == Reduce::all ? 1 : 0; }
  static __device__ State join(State a, State b) { return op == Reduce::all ? a & b : a | b; }
  static __device__ void add(State& total, T x) { total = join(total, x != T(0) ? 1 : 0); }
  static __device__ int64_t finish(State total, T) { return total; }
};

// sum(exp(x - high)) beside the largest x so far, of which a NaN is one.
template <class Number>
struct Fold<Reduce::logsumexp, Number> {
  using T = Number;
  struct State {
    T high, sum;
  };
  static __device__ State none() { return {-std::numeric_limits<T>::infinity(), T(0)}; }
  static __device__ T power(T x, T high) { return x == high ? T(1) : std::exp(x - high); }
  static __device__ State join(const State& a, const State& b) {
    const T high = Fold<Reduce::max, T>::join(a.high, b.high);
    return {high, a.sum * power(a.high, high) + b.sum * power(b.high, high)};
  }
  static __device__ void add(State& total, T x) {
    const bool higher = x > total.high || x != x;
    const T small = higher ? total.high : x, high = higher ? x : total.high, e = power(small, high);
    total = {high, higher ? total.sum * e + T(1) : total.sum + e};
  }
  static __device__ T finish(const State& total, T) {
    return total.high - total.high == T(0) ? total.high + std::log(total.sum) : total.high;
  }
};

// Elements of any dtype, one at a time, as numbers of C.
template <class C>
struct AnyLoader {
  static constexpr int width = 1;
  DType dtype;
  template <class F>
  __device__ __forceinline__ void add(typename F::State& total, const char* x) const {
    F::add(total, load<C>(x, dtype));
  }
  template <class F>
  __device__ __forceinline__ void add_each(typename F::State (&totals)[1], const char* x) const {
    F::add(totals[0], load<C>(x, dtype));
  }
};

// Packs of S: neighbours go into one total, or each into its own.
template <class S>
struct PackLoader {
  static constexpr int width = Pack<S>::width;
  template <class F>
  __device__ __forceinline__ void add(typename F::State& total, const char* x) const {
    const auto run = read_run<width>(reinterpret_cast<const S*>(x));
#pragma unroll
    for (int j = 0; j < width; ++j) F::add(total, static_cast<typename F::T>(run.items[j]));
  }
  template <class F>
  __device__ __forceinline__ void add_each(typename F::State (&totals)[width], const char* x) const {
    const auto run = read_run<width>(reinterpret_cast<const S*>(x));
#pragma unroll
    for (int j = 0; j < width; ++j) F::add(totals[j], static_cast<typename F::T>(run.items[j]));
  }
};

}  // namespace loom::cuda
#endif
