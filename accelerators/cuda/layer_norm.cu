// Layer, RMS and group norm, also of sums that are made on the way. Rows that fit are read once and kept in the
// registers of a warp or a block; the variance is that of deviations from the mean.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dense.h>
#include <loom/accelerators/cuda/fused.h>
#include <loom/accelerators/cuda/row_norm.h>

namespace loom {

namespace {

using cuda::Pack;
using cuda::Plus;
using cuda::Run;
using cuda::threads_per_block;

template <class S, class W>
struct Norm {
  using T = compute_type<S>;
  S* y;
  const S* x;
  const W *w, *b;  // or null
  T *mean, *rstd;  // mean: null for rms
  int64_t rows, n;
  T eps, over;  // over: 1 / n
  bool rms, packs;
  cuda::RowWeights weights;
  S* sum = nullptr;              // or null: of x and branch, which is normalised in place of x
  const void* branch = nullptr;  // of S or of 16 bits
  DType branch_type = DType::f32;

  // run += branch from element `at` on, and goes to the sum.
  template <int count>
  __device__ __forceinline__ void add_branch(Run<S, count>& run, int64_t at) const {
    const auto add = [&](const auto& other) {
#pragma unroll
      for (int j = 0; j < count; ++j)
        run.items[j] = static_cast<S>(static_cast<T>(run.items[j]) + static_cast<T>(other.items[j]));
    };
    if (branch_type == dtype_of<S>())
      add(cuda::read_run<count>(static_cast<const S*>(branch) + at));
    else if (branch_type == DType::bf16)
      add(cuda::read_run<count>(static_cast<const BFloat16*>(branch) + at));
    else
      add(cuda::read_run<count>(static_cast<const Half*>(branch) + at));
    cuda::write_run(sum + at, run);
  }
  __device__ T normal(T x_hat, int64_t k) const {
    if (w != nullptr) x_hat *= static_cast<T>(w[k]);
    return b != nullptr ? x_hat + static_cast<T>(b[k]) : x_hat;
  }
  __device__ T deviation(T squares) const { return cuda::inverse_root(squares * over + eps); }
  __device__ void keep(int64_t r, T m, T s) const {
    if (!rms) mean[r] = m;
    rstd[r] = s;
  }
};

template <class S, class W, int team, int steps>
__global__ void __launch_bounds__(threads_per_block) norm_short(Norm<S, W> p) {
  using T = compute_type<S>;
  using Packs = cuda::RowPacks<S, team, steps>;
  constexpr int together = threads_per_block / team, width = Packs::width;
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.rows; first += int64_t{gridDim.x} * together) {
    const int64_t r = first + threadIdx.x / team;
    const int64_t n = r < p.rows ? p.n : 0;
    Packs row;
    row.read(p.x + r * p.n, n);
    if (p.branch != nullptr) Packs::for_each(n, [&](int k, int64_t i) { p.add_branch(row.runs[k], r * p.n + i); });
    T mean = 0, squares = 0;
    if (!p.rms) {
      Packs::for_each(n, [&](int k, int64_t) {
#pragma unroll
        for (int j = 0; j < width; ++j) mean += static_cast<T>(row.runs[k].items[j]);
      });
      mean = cuda::across_team<team, threads_per_block>(mean, Plus()) * p.over;
    }
    Packs::for_each(n, [&](int k, int64_t) {
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const T d = static_cast<T>(row.runs[k].items[j]) - mean;
        squares += d * d;
      }
    });
    const T rstd = p.deviation(cuda::across_team<team, threads_per_block>(squares, Plus()));
    Packs::for_each(n, [&](int k, int64_t i) {
      Run<W, width> w, b;
      if (p.w != nullptr) w = cuda::read_run<width>(p.w + i);
      if (p.b != nullptr) b = cuda::read_run<width>(p.b + i);
      Run<S, width> out;
#pragma unroll
      for (int j = 0; j < width; ++j) {
        T value = (static_cast<T>(row.runs[k].items[j]) - mean) * rstd;
        if (p.w != nullptr) value *= static_cast<T>(w.items[j]);
        if (p.b != nullptr) value += static_cast<T>(b.items[j]);
        out.items[j] = static_cast<S>(value);
      }
      cuda::write_run(p.y + r * p.n + i, out);
    });
    if (n > 0 && threadIdx.x % team == 0) p.keep(r, mean, rstd);
  }
}

// The sums by themselves, for rows that take norm_long, `width` elements at a time.
template <class S, class W, int width>
__global__ void __launch_bounds__(threads_per_block) join_kernel(Norm<S, W> p) {
  cuda::for_each_item(p.rows * p.n / width, [&](int64_t i) {
    auto run = cuda::read_run<width>(p.x + i * width);
    p.add_branch(run, i * width);
  });
}

// Any row, read three times, of which the caches answer two.
template <class S, class W, int team>
__global__ void __launch_bounds__(threads_per_block) norm_long(Norm<S, W> p) {
  using T = compute_type<S>;
  constexpr int together = threads_per_block / team;
  const int thread = threadIdx.x % team;
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.rows; first += int64_t{gridDim.x} * together) {
    const int64_t r = first + threadIdx.x / team;
    const int64_t n = r < p.rows ? p.n : 0;
    const S* const x = p.x + (n > 0 ? r * p.n : 0);
    T mean = 0, squares = 0;
    if (!p.rms) {
      cuda::for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
        const auto run = cuda::read_run<count>(x + i);
#pragma unroll
        for (int j = 0; j < count; ++j) mean += static_cast<T>(run.items[j]);
      });
      mean = cuda::across_team<team, threads_per_block>(mean, Plus()) * p.over;
    }
    cuda::for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
      const auto run = cuda::read_run<count>(x + i);
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const T d = static_cast<T>(run.items[j]) - mean;
        squares += d * d;
      }
    });
    const T rstd = p.deviation(cuda::across_team<team, threads_per_block>(squares, Plus()));
    const int64_t weight = p.weights.first(r);
    cuda::for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
      const auto in = cuda::read_run<count>(x + i);
      Run<S, count> out;
#pragma unroll
      for (int j = 0; j < count; ++j)
        out.items[j] =
            static_cast<S>(p.normal((static_cast<T>(in.items[j]) - mean) * rstd, weight + p.weights.on(i + j)));
      cuda::write_run(p.y + r * p.n + i, out);
    });
    if (n > 0 && thread == 0) p.keep(r, mean, rstd);
  }
}

struct Operands {
  const View &y, &mean, &rstd, &x, &w, &b;
  double eps;
  bool rms;
  int64_t spread;
  View sum, branch;  // or null data
};

template <class S, class W>
void join(cuda::Gpu& gpu, const char* name, Norm<S, W>& p, bool aligned) {
  constexpr int width = Pack<S>::width;
  const int64_t numel = p.rows * p.n;
  if (aligned && numel % width == 0)
    cuda::launch(gpu, name, &join_kernel<S, W, width>, cuda::grid_for(gpu, numel / width), threads_per_block, 0, p);
  else
    cuda::launch(gpu, name, &join_kernel<S, W, 1>, cuda::grid_for(gpu, numel), threads_per_block, 0, p);
  p.x = p.sum;
  p.branch = nullptr;
  p.packs = cuda::lie_alike(p.x, p.y);
}

template <class S, class W>
void start(cuda::Gpu& gpu, const char* name, Norm<S, W>& p, bool aligned) {
  const auto run_short = [&]<int team, int steps> {
    cuda::launch(gpu, name, &norm_short<S, W, team, steps>, cuda::blocks_for_rows(p.rows, threads_per_block / team),
                 threads_per_block, 0, p);
  };
  if (cuda::with_row_team<S>(p.n, aligned, run_short)) return;
  if (p.branch != nullptr) join(gpu, name, p, aligned);
  if (p.n <= 1024)
    cuda::launch(gpu, name, &norm_long<S, W, cuda::warp_size>, cuda::blocks_for_rows(p.rows, 8), threads_per_block, 0,
                 p);
  else
    cuda::launch(gpu, name, &norm_long<S, W, threads_per_block>, cuda::blocks_for_rows(p.rows, 1), threads_per_block, 0,
                 p);
}

template <class S, class W>
void normalise(cuda::Gpu& gpu, Accelerator& kernels, const char* name, const Operands& o) {
  using T = compute_type<S>;
  const int64_t rows = o.x.shape[0], n = o.x.shape[1];
  const cuda::DenseInput in(gpu, kernels, o.x, o.x.dtype), w_in(gpu, kernels, o.w, dtype_of<W>()),
      b_in(gpu, kernels, o.b, dtype_of<W>());
  const cuda::DenseOutput out(gpu, kernels, o.y, o.y.dtype),
      mean_out(gpu, kernels, o.rms ? View() : o.mean, dtype_of<T>()), rstd_out(gpu, kernels, o.rstd, dtype_of<T>());
  const int64_t count = o.w.data != nullptr ? o.w.numel() : o.b.data != nullptr ? o.b.numel() : 1;
  const cuda::RowWeights weights(n, count, o.spread);
  cuda::check_rows(name, rows, n, weights);
  Norm<S, W> p{out.as<S>(),
               in.as<S>(),
               w_in.as<W>(),
               b_in.as<W>(),
               mean_out.as<T>(),
               rstd_out.as<T>(),
               rows,
               n,
               static_cast<T>(o.eps),
               static_cast<T>(1 / static_cast<double>(n)),
               o.rms,
               cuda::lie_alike(in.as<S>(), out.as<S>()),
               weights,
               o.sum.as<S>(),
               o.branch.data,
               o.branch.dtype};
  bool aligned =
      o.spread == 1 && cuda::is_aligned(p.x) && cuda::is_aligned(p.y) && cuda::is_aligned(p.w) && cuda::is_aligned(p.b);
  if (p.branch != nullptr) aligned = aligned && cuda::is_aligned(p.sum) && cuda::is_aligned(p.branch);
  start(gpu, name, p, aligned);
  out.store();
  mean_out.store();
  rstd_out.store();
}

void normalise(cuda::Gpu& gpu, Accelerator& kernels, const Operands& o) {
  const char* const name = o.rms ? "rms_norm" : "layer_norm";
  with_floating(name, o.x.dtype, [&]<class S> {
    if (o.x.numel() == 0) return;
    cuda::with_weight_type<S>(o.w, o.b, [&]<class W> { normalise<S, W>(gpu, kernels, name, o); });
  });
}

}  // namespace

void Cuda::layer_norm(const View& y, const View& mean, const View& rstd, const View& x, const View& w, const View& b,
                      double eps, bool rms, int64_t spread) {
  normalise(gpu_, *this, {y, mean, rstd, x, w, b, eps, rms, spread, {}, {}});
}

void CudaFused::add_layer_norm(const View& sum, const View& y, const View& mean, const View& rstd, const View& x,
                               const View& branch, const View& w, const View& b, double eps, bool rms) {
  normalise(gpu_, kernels_, {y, mean, rstd, x, w, b, eps, rms, 1, sum, branch});
}

}  // namespace loom
