// Layer norm and RMS norm with their gradients.
#include <algorithm>
#include <cmath>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

template <class T>
void layer_norm_row(T* __restrict y, T* mean, T* rstd, const T* x, const T* w, const T* b, int64_t n, double eps) {
  Moments m{0, 0};
  if (mean != nullptr)
    m = moments(x, 1, n, n);
  else
    m.variance = blocked_sum<T>(n, [=](int64_t i) { return x[i] * x[i]; }) / static_cast<double>(n);
  const T middle = static_cast<T>(m.mean), scale = inverse_deviation<T>(m.variance, eps);
  if (mean != nullptr) *mean = middle;
  *rstd = scale;
  const auto normalised = [=](int64_t i) { return (x[i] - middle) * scale; };
  if (w != nullptr && b != nullptr)
    for (int64_t i = 0; i < n; ++i) y[i] = multiply_add(normalised(i), w[i], b[i]);
  else if (w != nullptr)
    for (int64_t i = 0; i < n; ++i) y[i] = normalised(i) * w[i];
  else
    for (int64_t i = 0; i < n; ++i) y[i] = normalised(i) + (b != nullptr ? b[i] : T(0));
}

// One row's share in the gradients; h = dy * w is what reaches the normalised value x^ = (x - mean) * rstd.
template <class T>
struct LayerNormGrad {
  int64_t n;
  const T* w;

  void input(T* __restrict dx, const T* dy, const T* x, T mean, T rstd, bool rms) const {
    if (w != nullptr)
      input(dx, x, mean, rstd, rms, [dy, w = w](int64_t i) { return dy[i] * w[i]; });
    else
      input(dx, x, mean, rstd, rms, [dy](int64_t i) { return dy[i]; });
  }
  template <class H>
  void input(T* __restrict dx, const T* x, T mean, T rstd, bool rms, const H h) const {
    const auto count = static_cast<double>(n);
    const auto sums = blocked_sums<T>(
        n, [=](int64_t i) { return h(i) * ((x[i] - mean) * rstd); }, h);
    const T along = static_cast<T>(sums[0] / count), middle = rms ? T(0) : static_cast<T>(sums[1] / count);
    for (int64_t i = 0; i < n; ++i) dx[i] = rstd * (h(i) - middle - (x[i] - mean) * rstd * along);
  }
  void parameters(T* __restrict dw, T* __restrict db, const T* dy, const T* x, T mean, T rstd) const {
    if (dw != nullptr && db != nullptr)
      for (int64_t i = 0; i < n; ++i) {
        dw[i] += dy[i] * ((x[i] - mean) * rstd);
        db[i] += dy[i];
      }
    else if (dw != nullptr)
      for (int64_t i = 0; i < n; ++i) dw[i] += dy[i] * ((x[i] - mean) * rstd);
    else if (db != nullptr)
      for (int64_t i = 0; i < n; ++i) db[i] += dy[i];
  }
};

// dw and db are summed in at most 32 parts, cut by the number of rows alone: the same bits for any number of threads.
int64_t parts_for(int64_t rows) { return std::clamp<int64_t>(rows / 16, 1, 32); }

template <class T>
void sum_parts(T* total, const T* parts, int64_t count, int64_t n) {
  if (total == nullptr) return;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (int64_t p = 0; p < count; ++p) sum += static_cast<double>(parts[p * n + i]);
    total[i] = static_cast<T>(sum);
  }
}

}  // namespace

void Cpu::layer_norm(const View& y, const View& mean, const View& rstd, const View& x, const View& w, const View& b,
                     double eps, bool rms) {
  with_floating(rms ? "rms_norm" : "layer_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = x.shape[0], n = x.shape[1];
    const DenseInput<T> in(x), weight(w), bias(b);
    const DenseOutput<T> out(y), mean_out(rms ? View() : mean), rstd_out(rstd);
    parallel_for(rows, grain_of(n * 4), [&](int64_t begin, int64_t end) {
      RowTarget<T> target(rows * n, n);
      for (int64_t r = begin; r < end; ++r) {
        layer_norm_row(target.begin(out.data() + r * n), rms ? nullptr : mean_out.data() + r, rstd_out.data() + r,
                       in.data() + r * n, weight.data(), bias.data(), n, eps);
        target.end(out.data() + r * n, n);
      }
    });
    out.store();
    mean_out.store();
    rstd_out.store();
  });
}

void Cpu::layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x, const View& w,
                          const View& mean, const View& rstd, bool rms) {
  with_floating(rms ? "rms_norm" : "layer_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = x.shape[0], n = x.shape[1], parts = parts_for(rows);
    const DenseInput<T> g(dy), in(x), weight(w), mean_in(rms ? View() : mean), rstd_in(rstd);
    const DenseOutput<T> dx_out(dx), dw_out(dw), db_out(db);
    const Scratch<T> dw_parts(dw.data != nullptr ? parts * n : 0), db_parts(db.data != nullptr ? parts * n : 0);
    const LayerNormGrad<T> grad{n, weight.data()};
    parallel_for(parts, grain_of(rows / parts * n * 4), [&](int64_t begin, int64_t end) {
      RowTarget<T> target(rows * n, n);
      for (int64_t p = begin; p < end; ++p) {
        T* const dw_part = dw.data != nullptr ? dw_parts.data() + p * n : nullptr;
        T* const db_part = db.data != nullptr ? db_parts.data() + p * n : nullptr;
        if (dw_part != nullptr) std::fill_n(dw_part, n, T(0));
        if (db_part != nullptr) std::fill_n(db_part, n, T(0));
        for (int64_t r = rows * p / parts; r < rows * (p + 1) / parts; ++r) {
          const T middle = rms ? T(0) : mean_in.data()[r], scale = rstd_in.data()[r];
          const T *gr = g.data() + r * n, *xr = in.data() + r * n;
          if (dx.data != nullptr) {
            grad.input(target.begin(dx_out.data() + r * n), gr, xr, middle, scale, rms);
            target.end(dx_out.data() + r * n, n);
          }
          grad.parameters(dw_part, db_part, gr, xr, middle, scale);
        }
      }
    });
    sum_parts(dw_out.data(), dw_parts.data(), parts, n);
    sum_parts(db_out.data(), db_parts.data(), parts, n);
    dx_out.store();
    dw_out.store();
    db_out.store();
  });
}

}  // namespace loom
