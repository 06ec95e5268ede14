// Gradients of layer, RMS and group norm. With h = dy * w and x^ = (x - mean) * rstd,
//   dx = rstd * (h - mean(h) - x^ * mean(h * x^)), dw = sum over rows of dy * x^, db = sum over rows of dy.
// Where rows fit into registers one pass gives all three: blocks add up dw and db of their rows, a second kernel
// theirs.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dense.h>
#include <loom/accelerators/cuda/fused.h>
#include <loom/accelerators/cuda/layer_norm_grad.h>
#include <loom/accelerators/cuda/partials.h>

namespace loom {

namespace {

using namespace cuda::layer_norm;

using cuda::RowValues;
using cuda::threads_per_block;

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
    const bool all_aligned = aligned(p.dx) && aligned(p.dy) && aligned(p.x) && aligned(p.w) && aligned(p.plus);
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

struct Operands {
  const View &dx, &dw, &db, &dy, &x, &w, &mean, &rstd;
  bool rms;
  int64_t spread;
  View plus;  // or null data
};

template <class S, class W>
void differentiate(cuda::Gpu& gpu, Accelerator& kernels, const char* name, const Operands& o) {
  using T = compute_type<S>;
  const int64_t rows = o.x.shape[0], n = o.x.shape[1];
  const cuda::DenseInput g_in(gpu, kernels, o.dy, o.x.dtype), in(gpu, kernels, o.x, o.x.dtype),
      w_in(gpu, kernels, o.w, dtype_of<W>()), plus_in(gpu, kernels, o.plus, o.x.dtype);
  const cuda::DenseInput mean_in(gpu, kernels, o.rms ? View() : o.mean, dtype_of<T>()),
      rstd_in(gpu, kernels, o.rstd, dtype_of<T>());
  const cuda::DenseOutput out(gpu, kernels, o.dx, o.x.dtype);
  const int64_t count = o.dw.data != nullptr   ? o.dw.numel()
                        : o.db.data != nullptr ? o.db.numel()
                        : o.w.data != nullptr  ? o.w.numel()
                                               : 1;
  const cuda::RowWeights weights(n, count, o.spread);
  cuda::check_rows(name, rows, n, weights);
  const bool packs = cuda::lie_alike(in.as<S>(), g_in.as<S>(), out.as<S>(), plus_in.as<S>());
  Stages<S, W> stages{
      gpu,
      name,
      {out.as<S>(), g_in.as<S>(), in.as<S>(), w_in.as<W>(), nullptr, nullptr, mean_in.as<T>(), rstd_in.as<T>(), rows, n,
       static_cast<T>(1 / static_cast<double>(n)), o.rms, packs, weights, plus_in.as<S>()},
      o.dw.data != nullptr,
      o.db.data != nullptr};
  if (!stages.run_short(o.dw, o.db)) {
    stages.run_long(o.dw, o.db);
    if (o.plus.data != nullptr && o.dx.data != nullptr) {
      const View dx = view_over(out.as<S>(), o.x.dtype, o.x.shape, o.x.device);
      kernels.binary(Binary::add, dx, dx, o.plus);
    }
  }
  out.store();
}

void differentiate(cuda::Gpu& gpu, Accelerator& kernels, const Operands& o) {
  const char* const name = o.rms ? "rms_norm" : "layer_norm";
  with_floating(name, o.x.dtype, [&]<class S> {
    if (o.x.shape[0] == 0 || o.x.shape[1] == 0) {
      if (o.dw.data != nullptr) kernels.fill(o.dw, 0.0);
      if (o.db.data != nullptr) kernels.fill(o.db, 0.0);
      return;
    }
    cuda::with_weight_type<S>(o.w, o.w, [&]<class W> { differentiate<S, W>(gpu, kernels, name, o); });
  });
}

}  // namespace

void Cuda::layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x, const View& w,
                           const View& mean, const View& rstd, bool rms, int64_t spread) {
  differentiate(gpu_, *this, {dx, dw, db, dy, x, w, mean, rstd, rms, spread, {}});
}

void CudaFused::add_layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& plus,
                                    const View& x, const View& w, const View& mean, const View& rstd, bool rms) {
  differentiate(gpu_, kernels_, {dx, dw, db, dy, x, w, mean, rstd, rms, 1, plus});
}

}  // namespace loom
