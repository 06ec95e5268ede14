// Batch norm: statistics, normalisation and gradients.
#include <algorithm>
#include <array>
#include <utility>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/simd.h>
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

// Sums of `count` terms over n elements of several arrays: f(add, mask, x...) is given vectors x of each array and
// calls add(k, term) for each sum k; where mask is 0, which is past the end, terms must be 0.
template <class T, int count>
class Sums {
 public:
  template <class F, class... Arrays>
  void add(int64_t n, const F& f, const Arrays*... x) {
    static const Vec<T> all = broadcast(T(1));
    constexpr int64_t width = lanes<T>;
    int64_t i = 0;
    for (; i + ways * width <= n; i += ways * width) {
#pragma GCC unroll 4
      for (int way = 0; way < ways; ++way)
        f([&](int k, Vec<T> term) { sum_[way][k] += term; }, all, load(x + i + way * width)...);
    }
    for (; i < n; i += width) {
      const FirstLanes<T> rest(n - i < width ? n - i : width);
      f([&](int k, Vec<T> term) { sum_[0][k] += term; }, load(&ones_[0], rest), load(x + i, rest)...);
    }
  }
  double operator[](int k) const {
    double total = 0;
    for (int way = 0; way < ways; ++way)
      for (int lane = 0; lane < lanes<T>; ++lane) total += static_cast<double>(sum_[way][k][lane]);
    return total;
  }

 private:
  static constexpr int ways = 4;  // sums side by side, for the processor to work on while others are under way
  static constexpr std::array<T, lanes<T>> ones_ = [] {
    std::array<T, lanes<T>> ones{};
    ones.fill(T(1));
    return ones;
  }();
  Vec<T> sum_[ways][count] = {};
};

// Elements of which sums are kept in T before they are added in double; few enough to be read twice from the cache.
constexpr int64_t piece = 2048;

// Calls f(runs) with f'(offset, length) for pieces of a channel: whole stretches, or parts of long ones.
template <class F>
void for_pieces(const Channels& channels, int64_t c, const F& f) {
  const int64_t together = std::max<int64_t>(1, piece / std::max<int64_t>(1, channels.length));
  const int64_t base = c * channels.channel_step;
  for (int64_t r = 0; r < channels.runs; r += together)
    for (int64_t begin = 0; begin < channels.length; begin += piece) {
      const int64_t length = std::min(piece, channels.length - begin), last = std::min(channels.runs, r + together);
      f((last - r) * length, [=](const auto& run) {
        for (int64_t i = r; i < last; ++i) run(base + i * channels.step + begin, length);
      });
    }
}

// Mean and biased variance of channel c: those of each piece, its deviations taken from its own mean, put together as
// Chan, Golub and LeVeque (1979) do. Every element comes from memory once.
template <class T>
Moments channel_moments(const Channels& channels, const T* x, int64_t c) {
  double count = 0, mean = 0, squares = 0;
  for_pieces(channels, c, [&](int64_t size, const auto& for_runs) {
    const auto n = static_cast<double>(size);
    Sums<T, 1> plain;
    for_runs([&](int64_t at, int64_t length) {
      plain.add(
          length, [](const auto& add, Vec<T>, Vec<T> v) { add(0, v); }, x + at);
    });
    const T around = static_cast<T>(plain[0] / n);
    Sums<T, 2> off;
    for_runs([&](int64_t at, int64_t length) {
      off.add(
          length,
          [m = broadcast(around)](const auto& add, Vec<T> mask, Vec<T> v) {
            const Vec<T> d = (v - m) * mask;
            add(0, d);
            add(1, d * d);
          },
          x + at);
    });
    const double rest = off[0] / n, piece_mean = static_cast<double>(around) + rest, step = piece_mean - mean;
    squares += off[1] - rest * off[0] + step * step * count * n / (count + n);
    count += n;
    mean += step * n / count;
  });
  return {mean, std::max(0.0, squares / count)};
}

// One channel: y = (x - mean) * scale + shift.
template <class T>
struct BatchNormGrad {
  const Channels& channels;
  const T *dy, *x;
  T mean, rstd, w;

  // Sums of dy * x^ and of dy.
  std::pair<double, double> sums(int64_t c) const {
    double along = 0, plain = 0;
    for_pieces(channels, c, [&](int64_t, const auto& for_runs) {
      Sums<T, 2> sum;
      for_runs([&](int64_t at, int64_t length) {
        sum.add(
            length,
            [m = broadcast(mean)](const auto& add, Vec<T>, Vec<T> g, Vec<T> in) {
              add(0, g * (in - m));  // past the end g is 0
              add(1, g);
            },
            dy + at, x + at);
      });
      along += sum[0];
      plain += sum[1];
    });
    return {along * static_cast<double>(rstd), plain};
  }
  void input(T* dx, int64_t c, T mean_along, T mean_plain) const {
    const T scale = w * rstd, m = mean, slope = rstd * mean_along;
    const int64_t n = channels.length;
    channels.for_runs(c, [=, this](int64_t at) {  // copies: a reference to a T might alias what is written
      const T *g = dy + at, *in = x + at;
      T* out = dx + at;
      for (int64_t i = 0; i < n; ++i) out[i] = scale * (g[i] - mean_plain - (in[i] - m) * slope);
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
      const Moments m = channel_moments(channels, in.data(), c);
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
