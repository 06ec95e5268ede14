// The kernels of layer norm's gradient (layer_norm_grad.cu).
#pragma once

#include <loom/accelerators/cuda/row_norm.h>

#if defined(__CUDACC__)
namespace loom::cuda::layer_norm {

inline constexpr int short_threads = 128;  // of blocks that take a row a warp: their registers are many
inline constexpr int columns = 32, column_parts = threads_per_block / columns;

template <class S, class W>
struct NormGrad {
  using T = compute_type<S>;
  S* dx;  // or null
  const S *dy, *x;
  const W* w;            // or null
  T *dw, *db;            // [parts, count], or null
  const T *mean, *rstd;  // mean: null for rms
  int64_t rows, n;
  T over;  // 1 / n
  bool rms, packs;
  RowWeights weights;
  const S* plus = nullptr;  // or null: what dx is added to

  // Elements `at` and on of dx.
  template <int count>
  __device__ __forceinline__ void put(int64_t at, T (&values)[count]) const {
    if (plus != nullptr) {
      const auto more = read_run<count>(plus + at);
#pragma unroll
      for (int j = 0; j < count; ++j) values[j] += static_cast<T>(more.items[j]);
    }
    Run<S, count> out;
#pragma unroll
    for (int j = 0; j < count; ++j) out.items[j] = static_cast<S>(values[j]);
    write_run(dx + at, out);
  }
  __device__ T mean_of(int64_t r) const { return rms ? T(0) : mean[r]; }
};

template <class T>
using Along = Sums<T, 2>;  // of h * x^ and of h

template <class S, class W, int team, int steps>
__global__ void __launch_bounds__(team == 32 ? short_threads : threads_per_block, team == 32 ? 3 : 1)
    grad_short(NormGrad<S, W> p) {
  using T = compute_type<S>;
  using Packs = RowPacks<S, team, steps>;
  constexpr int threads = team == 32 ? short_threads : threads_per_block, together = threads / team;
  constexpr int width = Packs::width;
  T dw[steps * width] = {}, db[steps * width] = {};
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.rows; first += int64_t{gridDim.x} * together) {
    const int64_t r = first + threadIdx.x / team;
    const int64_t n = r < p.rows ? p.n : 0;
    Packs g, v;
    g.read(p.dy + r * p.n, n);
    v.read(p.x + r * p.n, n);
    const T mean = n > 0 ? p.mean_of(r) : T(0), rstd = n > 0 ? p.rstd[r] : T(0);
    Along<T> sums{};
    Packs::for_each(n, [&](int k, int64_t i) {
      Run<W, width> w;
      if (p.w != nullptr) w = read_run<width>(p.w + i);
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const T dy = static_cast<T>(g.runs[k].items[j]), x_hat = (static_cast<T>(v.runs[k].items[j]) - mean) * rstd;
        const T h = p.w != nullptr ? dy * static_cast<T>(w.items[j]) : dy;
        sums.sum[0] += h * x_hat;
        sums.sum[1] += h;
        dw[k * width + j] += dy * x_hat;
        db[k * width + j] += dy;
      }
    });
    if (p.dx == nullptr) continue;
    sums = across_team<team, threads>(sums, PlusEach());
    const T along = sums.sum[0] * p.over, middle = p.rms ? T(0) : sums.sum[1] * p.over;
    Packs::for_each(n, [&](int k, int64_t i) {
      Run<W, width> w;
      if (p.w != nullptr) w = read_run<width>(p.w + i);
      T out[width];
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const T dy = static_cast<T>(g.runs[k].items[j]), x_hat = (static_cast<T>(v.runs[k].items[j]) - mean) * rstd;
        const T h = p.w != nullptr ? dy * static_cast<T>(w.items[j]) : dy;
        out[j] = rstd * (h - middle - x_hat * along);
      }
      p.put(r * p.n + i, out);
    });
  }
  // One team after the other adds to what the block has.
  T* const own = dynamic_shared<T>();
  const auto collect = [&](T* to, const T* sums) {
    if (to == nullptr) return;
    for (int t = 0; t < together; ++t) {
      __syncthreads();
      if (static_cast<int>(threadIdx.x) / team != t) continue;
      Packs::for_each(p.n, [&](int k, int64_t i) {
#pragma unroll
        for (int j = 0; j < width; ++j) own[i + j] = t == 0 ? sums[k * width + j] : own[i + j] + sums[k * width + j];
      });
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < p.n; i += threads) to[blockIdx.x * p.n + i] = own[i];
  };
  collect(p.dw, dw);
  collect(p.db, db);
}

// dx of any row, in two passes.
template <class S, class W, int team>
__global__ void __launch_bounds__(threads_per_block) grad_long(NormGrad<S, W> p) {
  using T = compute_type<S>;
  constexpr int together = threads_per_block / team;
  const int thread = threadIdx.x % team;
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.rows; first += int64_t{gridDim.x} * together) {
    const int64_t r = first + threadIdx.x / team;
    const int64_t n = r < p.rows ? p.n : 0, at = n > 0 ? r * p.n : 0;
    const S *const dy = p.dy + at, *const x = p.x + at;
    const T mean = n > 0 ? p.mean_of(r) : T(0), rstd = n > 0 ? p.rstd[r] : T(0);
    const int64_t weight = p.weights.first(r);
    const auto h_of = [&](S g, int64_t i) {
      const T value = static_cast<T>(g);
      return p.w != nullptr ? value * static_cast<T>(p.w[weight + p.weights.on(i)]) : value;
    };
    Along<T> sums{};
    for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
      const auto g = read_run<count>(dy + i), v = read_run<count>(x + i);
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const T h = h_of(g.items[j], i + j);
        sums.sum[0] += h * ((static_cast<T>(v.items[j]) - mean) * rstd);
        sums.sum[1] += h;
      }
    });
    sums = across_team<team, threads_per_block>(sums, PlusEach());
    const T along = sums.sum[0] * p.over, middle = p.rms ? T(0) : sums.sum[1] * p.over;
    for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
      const auto g = read_run<count>(dy + i), v = read_run<count>(x + i);
      Run<S, count> out;
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const T x_hat = (static_cast<T>(v.items[j]) - mean) * rstd;
        out.items[j] = static_cast<S>(rstd * (h_of(g.items[j], i + j) - middle - x_hat * along));
      }
      write_run(p.dx + at + i, out);
    });
  }
}

// dw and db of rows of any length, a weight for each element: columns side by side, rows shared by `column_parts` and
// by gridDim.y.
template <class S, class W>
__global__ void __launch_bounds__(threads_per_block) parameters_of_columns(NormGrad<S, W> p) {
  using T = compute_type<S>;
  __shared__ Along<T> own[threads_per_block];
  for (int64_t first = int64_t{blockIdx.x} * columns; first < p.n; first += int64_t{gridDim.x} * columns) {
    const int64_t c = first + threadIdx.x % columns;
    Along<T> sums{};
    for (int64_t r = int64_t{blockIdx.y} * column_parts + threadIdx.x / columns; c < p.n && r < p.rows;
         r += int64_t{gridDim.y} * column_parts) {
      const T g = static_cast<T>(p.dy[r * p.n + c]);
      sums.sum[0] += g * ((static_cast<T>(p.x[r * p.n + c]) - p.mean_of(r)) * p.rstd[r]);
      sums.sum[1] += g;
    }
    __syncthreads();
    own[threadIdx.x] = sums;
    __syncthreads();
    if (static_cast<int>(threadIdx.x) >= columns || c >= p.n) continue;
    for (int i = 1; i < column_parts; ++i) sums = PlusEach()(sums, own[threadIdx.x + i * columns]);
    if (p.dw != nullptr) p.dw[blockIdx.y * p.n + c] = sums.sum[0];
    if (p.db != nullptr) p.db[blockIdx.y * p.n + c] = sums.sum[1];
  }
}

// The same of weights that stand for `spread` elements each: a warp for each of these stretches, which lie in one row.
template <class S, class W>
__global__ void __launch_bounds__(threads_per_block) parameters_of_stretches(NormGrad<S, W> p, int64_t stretches) {
  using T = compute_type<S>;
  constexpr int together = threads_per_block / warp_size;
  const int64_t spread = p.weights.spread;
  for (int64_t first = int64_t{blockIdx.x} * together; first < stretches; first += int64_t{gridDim.x} * together) {
    const int64_t s = first + threadIdx.x / warp_size;
    const bool live = s < stretches;
    const int64_t at = live ? s * spread : 0, r = live ? p.weights.row_of(s) : 0;
    const T mean = p.mean_of(r), rstd = p.rstd[r];
    Along<T> sums{};
    for_row(p.x + at, live ? spread : 0, p.packs, threadIdx.x % warp_size, warp_size, [&]<int count>(int64_t i) {
      const auto g = read_run<count>(p.dy + at + i), v = read_run<count>(p.x + at + i);
#pragma unroll
      for (int j = 0; j < count; ++j) {
        sums.sum[0] += static_cast<T>(g.items[j]) * ((static_cast<T>(v.items[j]) - mean) * rstd);
        sums.sum[1] += static_cast<T>(g.items[j]);
      }
    });
    sums = across_lanes(sums, warp_size, PlusEach());
    if (!live || threadIdx.x % warp_size != 0) continue;
    if (p.dw != nullptr) p.dw[s] = sums.sum[0];
    if (p.db != nullptr) p.db[s] = sums.sum[1];
  }
}

}  // namespace loom::cuda::layer_norm
#endif
