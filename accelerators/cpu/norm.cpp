// Layer norm, RMS norm and batch norm with their gradients.
#include <algorithm>
#include <cmath>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

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

template <class T>
void layer_norm_row(T* y, T* mean, T* rstd, const T* x, const T* w, const T* b, int64_t n, double eps) {
  Moments m{0, 0};
  if (mean != nullptr) m = moments(x, 1, n, n);
  else m.variance = blocked_sum<T>(n, [=](int64_t i) { return x[i] * x[i]; }) / static_cast<double>(n);
  const T middle = static_cast<T>(m.mean), scale = inverse_deviation<T>(m.variance, eps);
  if (mean != nullptr) *mean = middle;
  *rstd = scale;
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - middle) * scale;
  if (w != nullptr)
    for (int64_t i = 0; i < n; ++i) y[i] *= w[i];
  if (b != nullptr)
    for (int64_t i = 0; i < n; ++i) y[i] += b[i];
}

// One row's share in the gradients; h = dy * w is what reaches the normalised value x^ = (x - mean) * rstd.
template <class T>
struct LayerNormGrad {
  int64_t n;
  const T* w;

  void input(T* dx, const T* dy, const T* x, T mean, T rstd, bool rms) const {
    const auto h = [dy, w = w](int64_t i) { return w != nullptr ? dy[i] * w[i] : dy[i]; };
    const auto count = static_cast<double>(n);
    const T along = static_cast<T>(blocked_sum<T>(n, [=](int64_t i) { return h(i) * ((x[i] - mean) * rstd); }) / count);
    const T middle = rms ? T(0) : static_cast<T>(blocked_sum<T>(n, h) / count);
    for (int64_t i = 0; i < n; ++i) dx[i] = rstd * (h(i) - middle - (x[i] - mean) * rstd * along);
  }
  void parameters(T* dw, T* db, const T* dy, const T* x, T mean, T rstd) const {
    if (dw != nullptr)
      for (int64_t i = 0; i < n; ++i) dw[i] += dy[i] * ((x[i] - mean) * rstd);
    if (db != nullptr)
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

// x [N, C, L] as [runs] stretches of `length` per channel. Short stretches are slow to walk, so a view with small L is
// turned into [C, N, L] first, where each channel is one stretch.
struct Channels {
  int64_t count, runs, length, step, channel_step;
  bool turned;

  explicit Channels(const Dims& shape) : count(shape[1]), turned(shape[2] < 16) {
    runs = turned ? 1 : shape[0];
    length = turned ? shape[0] * shape[2] : shape[2];
    channel_step = length;
    step = turned ? 0 : count * length;
  }
  View arrange(View x) const {
    if (!turned || x.data == nullptr) return x;
    std::swap(x.shape[0], x.shape[1]);
    std::swap(x.strides[0], x.strides[1]);
    return x;
  }
  int64_t size() const { return runs * length; }
  template <class F>
  void for_each(const F& f) const {
    parallel_for(count, grain_of(size()), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) f(c);
    });
  }
  // f(offset) for each stretch of channel c.
  template <class F>
  void for_runs(int64_t c, const F& f) const {
    for (int64_t r = 0; r < runs; ++r) f(c * channel_step + r * step);
  }
};

// One channel: y = (x - mean) * scale + shift.
template <class T>
struct BatchNormGrad {
  const Channels& channels;
  const T *dy, *x;
  T mean, rstd, w;

  // Sums of dy * x^ and of dy.
  std::pair<double, double> sums(int64_t c) const {
    double along = 0, plain = 0;
    channels.for_runs(c, [&](int64_t at) {
      const T *g = dy + at, *in = x + at;
      along += blocked_sum<T>(channels.length, [=, m = mean, r = rstd](int64_t i) { return g[i] * ((in[i] - m) * r); });
      plain += blocked_sum<T>(channels.length, [=](int64_t i) { return g[i]; });
    });
    return {along, plain};
  }
  void input(T* dx, int64_t c, T mean_along, T mean_plain) const {
    const T scale = w * rstd, m = mean, r = rstd;
    channels.for_runs(c, [&](int64_t at) {
      const T *g = dy + at, *in = x + at;
      T* out = dx + at;
      for (int64_t i = 0; i < channels.length; ++i)
        out[i] = scale * (g[i] - mean_plain - (in[i] - m) * r * mean_along);
    });
  }
};

}  // namespace

void Cpu::layer_norm(const View& y, const View& mean, const View& rstd, const View& x, const View& w, const View& b,
                     double eps, bool rms) {
  with_floating(rms ? "rms_norm" : "layer_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t rows = x.shape[0], n = x.shape[1];
    const DenseInput<T> in(x), weight(w), bias(b);
    const DenseOutput<T> out(y), mean_out(rms ? View() : mean), rstd_out(rstd);
    parallel_for(rows, grain_of(n * 4), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        layer_norm_row(out.data() + r * n, rms ? nullptr : mean_out.data() + r, rstd_out.data() + r, in.data() + r * n,
                       weight.data(), bias.data(), n, eps);
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
      for (int64_t p = begin; p < end; ++p) {
        T* const dw_part = dw.data != nullptr ? dw_parts.data() + p * n : nullptr;
        T* const db_part = db.data != nullptr ? db_parts.data() + p * n : nullptr;
        if (dw_part != nullptr) std::fill_n(dw_part, n, T(0));
        if (db_part != nullptr) std::fill_n(db_part, n, T(0));
        for (int64_t r = rows * p / parts; r < rows * (p + 1) / parts; ++r) {
          const T middle = rms ? T(0) : mean_in.data()[r], scale = rstd_in.data()[r];
          const T *gr = g.data() + r * n, *xr = in.data() + r * n;
          if (dx.data != nullptr) grad.input(dx_out.data() + r * n, gr, xr, middle, scale, rms);
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

void Cpu::batch_statistics(const View& mean, const View& var, const View& x) {
  with_floating("batch_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const Channels channels(x.shape);
    const DenseInput<T> in(channels.arrange(x));
    const DenseOutput<T> mean_out(mean), var_out(var);
    channels.for_each([&](int64_t c) {
      const Moments m = moments(in.data() + c * channels.channel_step, channels.runs, channels.length, channels.step);
      mean_out.data()[c] = static_cast<T>(m.mean);
      var_out.data()[c] = static_cast<T>(m.variance);
    });
    mean_out.store();
    var_out.store();
  });
}

void Cpu::batch_norm(const View& y, const View& x, const View& mean, const View& var, const View& w, const View& b,
                     double eps) {
  with_floating("batch_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const int64_t channels = x.shape[1], length = x.shape[2];
    const DenseInput<T> in(x), mean_in(mean), var_in(var), weight(w), bias(b);
    const DenseOutput<T> out(y);
    const Scratch<T> scales(channels), shifts(channels);
    T *const scale = scales.data(), *const shift = shifts.data();
    for (int64_t c = 0; c < channels; ++c) {
      scale[c] = inverse_deviation<T>(static_cast<double>(var_in.data()[c]), eps);
      if (w.data != nullptr) scale[c] *= weight.data()[c];
      shift[c] = b.data != nullptr ? bias.data()[c] : T(0);
    }
    parallel_for(x.shape[0], grain_of(channels * length), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T *from = in.data() + n * channels * length, *middle = mean_in.data();
        T* to = out.data() + n * channels * length;
        if (length == 1) {
          for (int64_t c = 0; c < channels; ++c) to[c] = (from[c] - middle[c]) * scale[c] + shift[c];
        } else {
          for (int64_t c = 0; c < channels; ++c, from += length, to += length)
            for (int64_t i = 0; i < length; ++i) to[i] = (from[i] - middle[c]) * scale[c] + shift[c];
        }
      }
    });
    out.store();
  });
}

void Cpu::batch_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x,
                          const View& mean, const View& var, const View& w, double eps, bool training) {
  with_floating("batch_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const Channels channels(x.shape);
    const DenseInput<T> g(channels.arrange(dy)), in(channels.arrange(x)), mean_in(mean), var_in(var), weight(w);
    const DenseOutput<T> dx_out(channels.arrange(dx)), dw_out(dw), db_out(db);
    channels.for_each([&](int64_t c) {
      const T rstd = inverse_deviation<T>(static_cast<double>(var_in.data()[c]), eps);
      const BatchNormGrad<T> grad{channels,           g.data(), in.data(),
                                  mean_in.data()[c], rstd,     w.data != nullptr ? weight.data()[c] : T(1)};
      const bool summed = training || dw.data != nullptr || db.data != nullptr;
      const auto [along, plain] = summed ? grad.sums(c) : std::pair(0.0, 0.0);
      if (dw.data != nullptr) dw_out.data()[c] = static_cast<T>(along);
      if (db.data != nullptr) db_out.data()[c] = static_cast<T>(plain);
      const double over = training ? 1 / static_cast<double>(channels.size()) : 0;
      if (dx.data != nullptr) grad.input(dx_out.data(), c, static_cast<T>(along * over), static_cast<T>(plain * over));
    });
    dx_out.store();
    dw_out.store();
    db_out.store();
  });
}

}  // namespace loom
