// Batch norm: statistics, normalisation and gradients.
#include <algorithm>
#include <utility>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

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
    const int64_t n = channels.length;
    channels.for_runs(c, [=, this](int64_t at) {  // copies: a reference to a T might alias what is written
      const T *g = dy + at, *in = x + at;
      T* out = dx + at;
      for (int64_t i = 0; i < n; ++i) out[i] = scale * (g[i] - mean_plain - (in[i] - m) * r * mean_along);
    });
  }
};

}  // namespace

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
    const T *const from = in.data(), *const middle = mean_in.data();
    T* const to = out.data();
    if (length == 1) {  // a row of channels at a time, else a channel
      parallel_for(x.shape[0], grain_of(channels), [=](int64_t begin, int64_t end) {
        for (int64_t at = begin * channels; at < end * channels; at += channels)
          for (int64_t c = 0; c < channels; ++c) to[at + c] = (from[at + c] - middle[c]) * scale[c] + shift[c];
      });
    } else {
      parallel_for(x.shape[0] * channels, grain_of(length), [=](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t c = row % channels;
          const T m = middle[c], r = scale[c], b = shift[c];
          for (int64_t i = row * length; i < (row + 1) * length; ++i) to[i] = (from[i] - m) * r + b;
        }
      });
    }
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
      const BatchNormGrad<T> grad{channels,          g.data(), in.data(),
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
