// Gradients of layer, RMS and group norm. With h = dy * w and x^ = (x - mean) * rstd,
//   dx = rstd * (h - mean(h) - x^ * mean(h * x^)), dw = sum over rows of dy * x^, db = sum over rows of dy.
// Where rows fit into registers one pass gives all three: blocks add up dw and db of their rows, a second kernel
// theirs.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dense.h>
#include <loom/accelerators/cuda/partials.h>
#include <loom/accelerators/cuda/row_norm.h>

namespace loom {

namespace {

using cuda::RowValues;
using cuda::Run;
using cuda::threads_per_block;

constexpr int short_threads = 128;  // of blocks that take a row a warp: their registers are many
constexpr int columns = 32, column_parts = threads_per_block / columns;

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
  cuda::RowWeights weights;

  __device__ T mean_of(int64_t r) const { return rms ? T(0) : mean[r]; }
};

template <class T>
using Along = cuda::Sums<T, 2>;  // of h * x^ and of h

template <class S, class W, int team, int steps>
__global__ void __launch_bounds__(team == 32 ? short_threads : threads_per_block, team == 32 ? 3 : 1)
    grad_short(NormGrad<S, W> p) {
  using T = compute_type<S>;
  using Packs = cuda::RowPacks<S, team, steps>;
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
      if (p.w != nullptr) w = cuda::read_run<width>(p.w + i);
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
    sums = cuda::across_team<team, threads>(sums, cuda::PlusEach());
    const T along = sums.sum[0] * p.over, middle = p.rms ? T(0) : sums.sum[1] * p.over;
    Packs::for_each(n, [&](int k, int64_t i) {
      Run<W, width> w;
      if (p.w != nullptr) w = cuda::read_run<width>(p.w + i);
      Run<S, width> out;
#pragma unroll
      for (int j = 0; j < width; ++j) {
        const T dy = static_cast<T>(g.runs[k].items[j]), x_hat = (static_cast<T>(v.runs[k].items[j]) - mean) * rstd;
        const T h = p.w != nullptr ? dy * static_cast<T>(w.items[j]) : dy;
        out.items[j] = static_cast<S>(rstd * (h - middle - x_hat * along));
      }
      cuda::write_run(p.dx + r * p.n + i, out);
    });
  }
  // One team after the other adds to what the block has.
  T* const own = cuda::dynamic_shared<T>();
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
    cuda::for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
      const auto g = cuda::read_run<count>(dy + i), v = cuda::read_run<count>(x + i);
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const T h = h_of(g.items[j], i + j);
        sums.sum[0] += h * ((static_cast<T>(v.items[j]) - mean) * rstd);
        sums.sum[1] += h;
      }
    });
    sums = cuda::across_team<team, threads_per_block>(sums, cuda::PlusEach());
    const T along = sums.sum[0] * p.over, middle = p.rms ? T(0) : sums.sum[1] * p.over;
    cuda::for_row(x, n, p.packs, thread, team, [&]<int count>(int64_t i) {
      const auto g = cuda::read_run<count>(dy + i), v = cuda::read_run<count>(x + i);
      Run<S, count> out;
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const T x_hat = (static_cast<T>(v.items[j]) - mean) * rstd;
        out.items[j] = static_cast<S>(rstd * (h_of(g.items[j], i + j) - middle - x_hat * along));
      }
      cuda::write_run(p.dx + at + i, out);
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
    for (int i = 1; i < column_parts; ++i) sums = cuda::PlusEach()(sums, own[threadIdx.x + i * columns]);
    if (p.dw != nullptr) p.dw[blockIdx.y * p.n + c] = sums.sum[0];
    if (p.db != nullptr) p.db[blockIdx.y * p.n + c] = sums.sum[1];
  }
}

// The same of weights that stand for `spread` elements each: a warp for each of these stretches, which lie in one row.
template <class S, class W>
__global__ void __launch_bounds__(threads_per_block) parameters_of_stretches(NormGrad<S, W> p, int64_t stretches) {
  using T = compute_type<S>;
  constexpr int together = threads_per_block / cuda::warp_size;
  const int64_t spread = p.weights.spread;
  for (int64_t first = int64_t{blockIdx.x} * together; first < stretches; first += int64_t{gridDim.x} * together) {
    const int64_t s = first + threadIdx.x / cuda::warp_size;
    const bool live = s < stretches;
    const int64_t at = live ? s * spread : 0, r = live ? p.weights.row_of(s) : 0;
    const T mean = p.mean_of(r), rstd = p.rstd[r];
    Along<T> sums{};
    cuda::for_row(p.x + at, live ? spread : 0, p.packs, threadIdx.x % cuda::warp_size, cuda::warp_size,
                  [&]<int count>(int64_t i) {
                    const auto g = cuda::read_run<count>(p.dy + at + i), v = cuda::read_run<count>(p.x + at + i);
#pragma unroll
                    for (int j = 0; j < count; ++j) {
                      sums.sum[0] += static_cast<T>(g.items[j]) * ((static_cast<T>(v.items[j]) - mean) * rstd);
                      sums.sum[1] += static_cast<T>(g.items[j]);
                    }
                  });
    sums = cuda::across_lanes(sums, cuda::warp_size, cuda::PlusEach());
    if (!live || threadIdx.x % cuda::warp_size != 0) continue;
    if (p.dw != nullptr) p.dw[s] = sums.sum[0];
    if (p.db != nullptr) p.db[s] = sums.sum[1];
  }
}

// The first stage of dw and db: how many parts there are, and what writes them.
template <class S, class W>
struct Stages {
  using T = compute_type<S>;
  cuda::Gpu& gpu;
  const char* name;
  NormGrad<S, W> p;
  bool wants_dw, wants_db;

  template <class F>
  void with_parts(int64_t parts, const View& dw, const View& db, const F& f) {
    const int64_t count = p.weights.count;
    const auto bytes = static_cast<size_t>(parts * count) * sizeof(T);
    const cuda::Scratch dw_parts(gpu, wants_dw ? bytes : 0), db_parts(gpu, wants_db ? bytes : 0);
    p.dw = dw_parts.as<T>();
    p.db = db_parts.as<T>();
    f(p);
    cuda::Partials<T, 2> all;
    all.parts = {p.dw, p.db};
    all.sums = {RowValues(dw), RowValues(db)};
    if (wants_dw || wants_db) cuda::add_parts(gpu, name, all, parts, count);
  }

  bool run_short(const View& dw, const View& db) {
    const auto aligned = [](const void* a) { return cuda::is_aligned(a); };
    const bool all_aligned = aligned(p.dx) && aligned(p.dy) && aligned(p.x) && aligned(p.w);
    return cuda::with_row_team<S>(p.n, all_aligned && p.weights.spread == 1, [&]<int team, int steps> {
      constexpr int threads = team == 32 ? short_threads : threads_per_block, together = threads / team;
      // As many blocks as run at once, about; each warp has some rows to pay for the second stage.
      const int64_t wanted = (p.rows + together * 4 - 1) / (together * 4), most = gpu.multiprocessors() * 4;
      const int64_t blocks = std::min(wanted, most);
      with_parts(blocks, dw, db, [&](const NormGrad<S, W>& problem) {
        cuda::launch(gpu, name, &grad_short<S, W, team, steps>, static_cast<unsigned>(blocks), threads,
                     static_cast<size_t>(p.n) * sizeof(T), problem);
      });
    });
  }

  void run_long(const View& dw, const View& db) {
    if (p.dx != nullptr && p.n <= 1024)
      cuda::launch(gpu, name, &grad_long<S, W, cuda::warp_size>, cuda::blocks_for_rows(p.rows, 8), threads_per_block, 0,
                   p);
    else if (p.dx != nullptr)
      cuda::launch(gpu, name, &grad_long<S, W, threads_per_block>, cuda::blocks_for_rows(p.rows, 1), threads_per_block,
                   0, p);
    if (!wants_dw && !wants_db) return;
    if (p.weights.spread > 1) {
      const int64_t stretches = p.rows * (p.n / p.weights.spread);
      with_parts(stretches / p.weights.count, dw, db, [&](const NormGrad<S, W>& problem) {
        cuda::launch(gpu, name, &parameters_of_stretches<S, W>, cuda::blocks_for_rows(stretches, 8), threads_per_block,
                     0, problem, stretches);
      });
      return;
    }
    const int64_t across = (p.n + columns - 1) / columns, most = (p.rows + column_parts * 8 - 1) / (column_parts * 8);
    const int64_t parts = std::clamp<int64_t>(gpu.multiprocessors() * 8 / across, 1, most);
    with_parts(parts, dw, db, [&](const NormGrad<S, W>& problem) {
      cuda::launch(gpu, name, &parameters_of_columns<S, W>,
                   dim3(static_cast<unsigned>(across), static_cast<unsigned>(parts)), threads_per_block, 0, problem);
    });
  }
};

}  // namespace

void Cuda::layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x, const View& w,
                           const View& mean, const View& rstd, bool rms, int64_t spread) {
  const char* const name = rms ? "rms_norm" : "layer_norm";
  with_floating(name, x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = x.shape[0], n = x.shape[1];
    if (rows == 0 || n == 0) {
      if (dw.data != nullptr) fill(dw, 0.0);
      if (db.data != nullptr) fill(db, 0.0);
      return;
    }
    cuda::with_weight_type<S>(w, w, [&]<class W> {
      const cuda::DenseInput g_in(gpu_, *this, dy, x.dtype), in(gpu_, *this, x, x.dtype),
          w_in(gpu_, *this, w, dtype_of<W>());
      const cuda::DenseInput mean_in(gpu_, *this, rms ? View() : mean, dtype_of<T>()),
          rstd_in(gpu_, *this, rstd, dtype_of<T>());
      const cuda::DenseOutput out(gpu_, *this, dx, x.dtype);
      const int64_t count = dw.data != nullptr   ? dw.numel()
                            : db.data != nullptr ? db.numel()
                            : w.data != nullptr  ? w.numel()
                                                 : 1;
      const cuda::RowWeights weights(n, count, spread);
      cuda::check_rows(name, rows, n, weights);
      Stages<S, W> stages{gpu_,
                          name,
                          {out.as<S>(), g_in.as<S>(), in.as<S>(), w_in.as<W>(), nullptr, nullptr, mean_in.as<T>(),
                           rstd_in.as<T>(), rows, n, static_cast<T>(1 / static_cast<double>(n)), rms,
                           cuda::lie_alike(in.as<S>(), g_in.as<S>(), out.as<S>()), weights},
                          dw.data != nullptr,
                          db.data != nullptr};
      if (!stages.run_short(dw, db)) stages.run_long(dw, db);
      out.store();
    });
  });
}

}  // namespace loom
