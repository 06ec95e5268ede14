// Rows of dense arrays, walked by the threads of a team 16 bytes at a time.
#pragma once

#include <cmath>
#include <cstdint>

#include <loom/accelerators/cuda/collective.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// Neighbours that are moved together, up to 16 bytes at once.
template <class T, int count>
struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Run {
  T items[count];
};
template <int count, class T>
__device__ __forceinline__ Run<T, count> read_run(const T* x) {
  return *reinterpret_cast<const Run<T, count>*>(x);
}
template <int count, class T>
__device__ __forceinline__ void write_run(T* y, const Run<T, count>& run) {
  *reinterpret_cast<Run<T, count>*>(y) = run;
}

// Calls f.operator()<count>(i) for the elements [i, i + count) of a row of n that this thread, one of `threads`, is to
// do: packs on 16-byte boundaries of `row`, single elements before and after them. `packs`: the arrays of the rows lie
// alike with respect to such boundaries.
template <class S, class F>
__device__ __forceinline__ void for_row(const S* row, int64_t n, bool packs, int thread, int threads, const F& f) {
  constexpr int width = Pack<S>::width;
  const auto past = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(S));
  int64_t head = packs ? (past == 0 ? 0 : width - past) : n;
  if (head > n) head = n;
  const int64_t end = head + (n - head) / width * width;
  for (int64_t i = thread; i < head; i += threads) f.template operator()<1>(i);
  for (int64_t i = head + int64_t{thread} * width; i < end; i += int64_t{threads} * width)
    f.template operator()<width>(i);
  for (int64_t i = end + thread; i < n; i += threads) f.template operator()<1>(i);
}

// Whether arrays of elements of one size lie alike with respect to 16-byte boundaries; null ones do not matter.
template <class... Pointers>
bool lie_alike(const void* first, const Pointers*... others) {
  const auto past = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16; };
  return ((others == nullptr || past(others) == past(first)) && ...);
}

// Powers of e of numbers that are not positive, as exact as S needs.
template <class S>
__device__ __forceinline__ compute_type<S> exp_of(compute_type<S> x) {
  if constexpr (sizeof(S) == 2)
    return __expf(x);
  else
    return std::exp(x);
}

template <class T>
__device__ __forceinline__ T inverse_root(T x) {
  if constexpr (sizeof(T) == 8)
    return rsqrt(x);
  else
    return T(1) / std::sqrt(x);
}

// sum(exp(x - high)) with the largest x so far; starts as {-infinity, 0}. An infinite or a NaN among x makes it NaN.
template <class T>
struct ExpSum {
  T high, sum;
  __device__ T base() const { return high == -std::numeric_limits<T>::infinity() ? T(0) : high; }
};
template <class T>
__device__ __forceinline__ ExpSum<T> no_exp_sum() {
  return {-std::numeric_limits<T>::infinity(), T(0)};
}

template <class S>
struct JoinExpSums {
  using T = compute_type<S>;
  __device__ ExpSum<T> operator()(const ExpSum<T>& a, const ExpSum<T>& b) const {
    ExpSum<T> out{b.high > a.high ? b.high : a.high, T(0)};
    const T base = out.base();
    out.sum = a.sum * exp_of<S>(a.high - base) + b.sum * exp_of<S>(b.high - base);
    return out;
  }
};

template <class S, int count>
__device__ __forceinline__ void add_exp(ExpSum<compute_type<S>>& total, const Run<S, count>& run) {
  using T = compute_type<S>;
  T high = total.high;
#pragma unroll
  for (int j = 0; j < count; ++j) {
    const T x = static_cast<T>(run.items[j]);
    high = x > high ? x : high;
  }
  const ExpSum<T> now{high, T(0)};
  const T base = now.base();
  T sum = total.sum * exp_of<S>(total.high - base);
#pragma unroll
  for (int j = 0; j < count; ++j) sum += exp_of<S>(static_cast<T>(run.items[j]) - base);
  total = {high, sum};
}

// A row in `steps` runs of `count` elements in each of `lanes` lanes; numbers past its end are `none`.
template <int count, int lanes, int steps, class S, class T>
__device__ __forceinline__ void read_row(T (&values)[steps * count], const S* row, int n, bool live, T none) {
  const int lane = threadIdx.x % lanes;
#pragma unroll
  for (int k = 0; k < steps; ++k) {
    const int i = (lane + k * lanes) * count;
    const bool there = live && i < n;
    Run<S, count> run{};
    if (there) run = read_run<count>(row + i);
#pragma unroll
    for (int j = 0; j < count; ++j) values[k * count + j] = there ? static_cast<T>(run.items[j]) : none;
  }
}
template <int count, int lanes, int steps, class S, class T>
__device__ __forceinline__ void write_row(S* row, const T (&values)[steps * count], int n) {
  const int lane = threadIdx.x % lanes;
#pragma unroll
  for (int k = 0; k < steps; ++k) {
    const int i = (lane + k * lanes) * count;
    Run<S, count> run;
#pragma unroll
    for (int j = 0; j < count; ++j) run.items[j] = static_cast<S>(values[k * count + j]);
    if (i < n) write_run(row + i, run);
  }
}

// Blocks for `rows` of which each takes `together`; kernels go on in strides of the grid.
inline unsigned blocks_for_rows(int64_t rows, int64_t together) {
  return static_cast<unsigned>(std::clamp<int64_t>((rows + together - 1) / together, 1, int64_t{1} << 30));
}

// Calls f.operator()<count, lanes, steps>() with what a row of n elements fits into, if it does.
template <int count, class F>
bool with_short_rows(int64_t runs, const F& f) {
  if (runs <= 4)
    f.template operator()<count, 4, 1>();
  else if (runs <= 16)
    f.template operator()<count, 16, 1>();
  else if (runs <= 32)
    f.template operator()<count, 32, 1>();
  else if (runs <= 64)
    f.template operator()<count, 32, 2>();
  else if (runs <= 128)
    f.template operator()<count, 32, 4>();
  else if constexpr (count == 1) {
    if (runs > 512) return false;
    f.template operator()<count, 32, 16>();
  } else
    return false;
  return true;
}
template <class S, class F>
bool with_row_shape(int64_t n, bool aligned, const F& f) {
  constexpr int width = Pack<S>::width;
  return aligned && n % width == 0 ? with_short_rows<width>(n / width, f) : with_short_rows<1>(n, f);
}

}  // namespace loom::cuda
#endif
