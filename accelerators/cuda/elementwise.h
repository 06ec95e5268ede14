// Elementwise kernels over any function of N elements: dense 16 bytes at a time, any other layout and dtype element by
// element. What a family of ops needs is its functor; see unary.cu.
#pragma once

#include <array>
#include <cstdint>

#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// y = f(x...) of dense arrays of one type T, C the type of the arithmetic; packs, then what is left.
template <class T, class C, size_t N, class F>
__global__ void __launch_bounds__(threads_per_block) dense_kernel(T* y, std::array<const T*, N> x, int64_t n, F f) {
  constexpr int width = Pack<T>::width;
  const auto at = [&](const auto& values, int i) {
    if constexpr (N == 1)
      return static_cast<T>(f(static_cast<C>(values[0].items[i])));
    else if constexpr (N == 2)
      return static_cast<T>(f(static_cast<C>(values[0].items[i]), static_cast<C>(values[1].items[i])));
    else
      return static_cast<T>(f(static_cast<C>(values[0].items[i]), static_cast<C>(values[1].items[i]),
                              static_cast<C>(values[2].items[i])));
  };
  for_each_item(n / width, [&](int64_t i) {
    Pack<T> values[N], out;
#pragma unroll
    for (size_t k = 0; k < N; ++k) values[k] = reinterpret_cast<const Pack<T>*>(x[k])[i];
#pragma unroll
    for (int j = 0; j < width; ++j) out.items[j] = at(values, j);
    reinterpret_cast<Pack<T>*>(y)[i] = out;
  });
  for_each_item(n % width, [&](int64_t i) {
    const int64_t last = n / width * width + i;
    Pack<T> values[N];
#pragma unroll
    for (size_t k = 0; k < N; ++k) values[k].items[0] = x[k][last];
    y[last] = at(values, 0);
  });
}

// The same for any layout and dtypes. Operand 0 is the output.
template <class C, size_t N, class F>
__global__ void __launch_bounds__(threads_per_block)
    any_kernel(Walk<N + 1> walk, std::array<DType, N + 1> dtypes, F f) {
  for_each_item(walk.numel, [&](uint32_t i) {
    const auto at = walk.offsets(i);
    C x[N];
#pragma unroll
    for (size_t k = 0; k < N; ++k) x[k] = load<C>(walk.data[k + 1] + at[k + 1], dtypes[k + 1]);
    if constexpr (N == 1)
      store(walk.data[0] + at[0], dtypes[0], f(x[0]));
    else if constexpr (N == 2)
      store(walk.data[0] + at[0], dtypes[0], f(x[0], x[1]));
    else
      store(walk.data[0] + at[0], dtypes[0], f(x[0], x[1], x[2]));
  });
}

// Whether the elements of all views lie alike and without gaps, in whatever order, on 16-byte boundaries.
template <size_t N>
bool are_dense(const std::array<const View*, N>& views) {
  const cpu::Loop<N> loop(views);
  for (size_t k = 0; k < N; ++k)
    if (!loop.contiguous(k, item_size(views[k]->dtype)) || !is_aligned(views[k]->data)) return false;
  return true;
}

template <class T, class C, size_t N, class F>
void run_dense(const char* name, const View& y, const std::array<const View*, N>& x, const F& f) {
  Gpu& gpu = gpu_of(y);
  std::array<const T*, N> data;
  for (size_t k = 0; k < N; ++k) data[k] = x[k]->template as<const T>();
  const int64_t n = y.numel();
  launch(gpu, name, &dense_kernel<T, C, N, F>, grid_for(gpu, n / Pack<T>::width + 1), threads_per_block, 0, y.as<T>(),
         data, n, f);
}

template <class C, size_t N, class F>
void run_any(const char* name, const View& y, const std::array<const View*, N>& x, const F& f) {
  std::array<const View*, N + 1> views{&y};
  std::array<DType, N + 1> dtypes{y.dtype};
  for (size_t k = 0; k < N; ++k) {
    views[k + 1] = x[k];
    dtypes[k + 1] = x[k]->dtype;
  }
  Gpu& gpu = gpu_of(y);
  for_each_walk(views, cpu::Order::any, [&](const Walk<N + 1>& walk, int64_t) {
    launch(gpu, name, &any_kernel<C, N, F>, grid_for(gpu, walk.numel), threads_per_block, 0, walk, dtypes, f);
  });
}

// y = f(x...), f over floats (f32 and 16 bits), doubles or 64-bit integers, as `with_function` gives it for a type C.
// Same dtypes in dense memory go 16 bytes at a time; integers do not, as there are few. `floating`: f is of floats
// alone.
template <size_t N, bool floating, class Functions>
void elementwise(const char* name, const View& y, const std::array<const View*, N>& x, const Functions& with_function) {
  if (y.numel() == 0) return;
  std::array<const View*, N + 1> views{&y};
  bool same = true;
  for (size_t k = 0; k < N; ++k) {
    views[k + 1] = x[k];
    same = same && x[k]->dtype == y.dtype;
  }
  if (same && is_floating(y.dtype) && are_dense(views))
    return with_floating(name, y.dtype, [&]<class T> {
      using C = compute_type<T>;
      run_dense<T, C, N>(name, y, x, with_function.template operator()<C>());
    });
  with_compute(compute_of(x[N - 1]->dtype), [&]<class C> {
    if constexpr (floating && std::is_integral_v<C>)
      fail(name, ": not implemented for ", x[N - 1]->dtype, " on cuda");
    else
      run_any<C, N>(name, y, x, with_function.template operator()<C>());
  });
}

}  // namespace loom::cuda
#endif
