// Batch norm: statistics, normalisation and gradients; also with what is added and the ReLU that follow it.
#include <algorithm>
#include <utility>

#include <loom/accelerators/cpu/channels.h>
#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/stream.h>

namespace loom {
using namespace cpu;

namespace {

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
  const double variance = squares / count;
  return {mean, variance < 0 ? 0 : variance};  // NaN stays
}

// to[i] = f of the i-th element of each x; `to` may be one of these.
template <class T, class F, class... Arrays>
void map(int64_t n, T* to, const F& f, const Arrays*... x) {
  int64_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store(to + i, f(load(x + i)...));
  if (i == n) return;
  const FirstLanes<T> rest(n - i);
  store(to + i, f(load(x + i, rest)...), rest);
}

// map() past the caches; stream_fence() when all is written.
template <class T, class F, class... Arrays>
void map_past(int64_t n, T* to, const F& f, const Arrays*... x) {
  constexpr int64_t line = 64 / sizeof(T);
  const int64_t before = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) / sizeof(T)) % line;
  int64_t i = std::min(n, (line - before) % line);
  map(i, to, f, x...);
  for (; i + line <= n; i += line)
    for (int64_t j = i; j < i + line; j += lanes<T>) {
      const Vec<T> v = f(load(x + j)...);
      stream(to + j, &v);
    }
  map(n - i, to + i, f, x + i...);
}

// One channel: y = (x - mean) * scale + shift.
template <class T>
struct BatchNormGrad {
  const Channels& channels;
  const T *dy, *x;
  T mean, rstd, w;

  // Sums of dy * x^ and of dy. A ReLU follows unless its result y is null: dy counts where that is positive, and what
  // counts becomes dy, kept in `passed`, or, where that is null, for the sums alone.
  std::pair<double, double> sums(int64_t c, const T* y, T* passed) {
    double along = 0, plain = 0;
    alignas(64) T some[piece];
    for_pieces(channels, c, [&](int64_t, const auto& for_runs) {
      Sums<T, 2> sum;
      for_runs([&](int64_t at, int64_t length) {
        const T* g = dy + at;
        if (y != nullptr) {
          T* const to = passed != nullptr ? passed + at : some;
          map(
              length, to, [](Vec<T> v, Vec<T> out) { return out <= Vec<T>{} ? Vec<T>{} : v; }, g, y + at);
          g = to;
        }
        sum.add(
            length,
            [m = broadcast(mean)](const auto& add, Vec<T>, Vec<T> v, Vec<T> in) {
              add(0, v * (in - m));  // past the end v is 0
              add(1, v);
            },
            g, x + at);
      });
      along += sum[0];
      plain += sum[1];
    });
    if (passed != nullptr) dy = passed;
    return {along * static_cast<double>(rstd), plain};
  }
  // past: dx goes past the caches
  void input(T* dx, int64_t c, T mean_along, T mean_plain, bool past) const {
    const Vec<T> scale = broadcast(w * rstd), m = broadcast(mean), slope = broadcast(rstd * mean_along),
                 offset = broadcast(mean_plain);
    const auto gradient = [=](Vec<T> g, Vec<T> in) { return scale * (g - offset - (in - m) * slope); };
    channels.for_runs(c, [=, this](int64_t at) {
      if (past)
        map_past(channels.length, dx + at, gradient, dy + at, x + at);
      else
        map(channels.length, dx + at, gradient, dy + at, x + at);
    });
    if (past) stream_fence();
  }
};

// What normalises each channel: (x - mean) * scale + shift.
template <class T>
struct Factors {
  DenseInput<T> mean;
  Scratch<T> scale, shift;
  Factors(const View& mean_of, const View& var, const View& w, const View& b, double eps)
      : mean(mean_of), scale(var.numel()), shift(var.numel()) {
    const DenseInput<T> variance(var), weight(w), bias(b);
    for (int64_t c = 0; c < var.numel(); ++c) {
      scale.data()[c] = inverse_deviation<T>(static_cast<double>(variance.data()[c]), eps);
      if (w.data != nullptr) scale.data()[c] *= weight.data()[c];
      shift.data()[c] = b.data != nullptr ? bias.data()[c] : T(0);
    }
  }
};

constexpr int64_t written = 512;  // elements at a time, where the output goes past the caches

// to[i] = last(normal, i) for each element i of x [N, C, L].
template <class T, class Last>
void normalise(const Dims& shape, T* to, const T* from, const Factors<T>& factors, const Last& last) {
  const int64_t channels = shape[1], length = shape[2];
  const T *const middle = factors.mean.data(), *const scale = factors.scale.data(), *const shift = factors.shift.data();
  if (length == 1)  // a row of channels at a time, else a channel
    return parallel_for(shape[0], grain_of(channels), [=](int64_t begin, int64_t end) {
      for (int64_t at = begin * channels; at < end * channels; at += channels)
        for (int64_t c = 0; c < channels; ++c)
          to[at + c] = last((from[at + c] - middle[c]) * scale[c] + shift[c], at + c);
    });
  parallel_for(shape[0] * channels, grain_of(length), [=](int64_t begin, int64_t end) {
    RowTarget<T> target(shape[0] * channels * length, written);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t c = row % channels;
      const T m = middle[c], r = scale[c], b = shift[c];
      for (int64_t first = row * length, n; first < (row + 1) * length; first += n) {
        n = std::min(written, (row + 1) * length - first);
        T* __restrict const y = target.begin(to + first);
        for (int64_t i = 0; i < n; ++i) y[i] = last((from[first + i] - m) * r + b, first + i);
        target.end(to + first, n);
      }
    }
  });
}

struct Backward {
  const View &dx, &dw, &db, &dy, &x, &mean, &var, &w;
  double eps;
  bool training;
  View relu = {}, passed = {};  // or null data
};

template <class T>
void differentiate(const Backward& o) {
  const Channels channels(o.x.shape);
  const DenseInput<T> g(channels.arrange(o.dy)), in(channels.arrange(o.x)), relu(channels.arrange(o.relu)),
      mean_in(o.mean), var_in(o.var), weight(o.w);
  const DenseOutput<T> dx_out(channels.arrange(o.dx)), passed(channels.arrange(o.passed)), dw_out(o.dw), db_out(o.db);
  T* const keeps = o.relu.data == nullptr ? nullptr : o.passed.data != nullptr ? passed.data() : dx_out.data();
  const bool summed = o.training || o.dw.data != nullptr || o.db.data != nullptr || o.relu.data != nullptr;
  const double over = o.training ? 1 / static_cast<double>(channels.size()) : 0;
  const bool past = channels.count * channels.size() * static_cast<int64_t>(sizeof(T)) >= stream_bytes;
  channels.for_each([&](int64_t c) {
    const T rstd = inverse_deviation<T>(static_cast<double>(var_in.data()[c]), o.eps);
    BatchNormGrad<T> grad{channels,          g.data(), in.data(),
                          mean_in.data()[c], rstd,     o.w.data != nullptr ? weight.data()[c] : T(1)};
    const auto [along, plain] = summed ? grad.sums(c, relu.data(), keeps) : std::pair(0.0, 0.0);
    if (o.dw.data != nullptr) dw_out.data()[c] = static_cast<T>(along);
    if (o.db.data != nullptr) db_out.data()[c] = static_cast<T>(plain);
    if (o.dx.data != nullptr)
      grad.input(dx_out.data(), c, static_cast<T>(along * over), static_cast<T>(plain * over),
                 past && grad.dy != dx_out.data());
  });
  dx_out.store();
  passed.store();
  dw_out.store();
  db_out.store();
}

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
    const DenseInput<T> in(x);
    const DenseOutput<T> out(y);
    normalise(x.shape, out.data(), in.data(), Factors<T>(mean, var, w, b, eps), [](T v, int64_t) { return v; });
    out.store();
  });
}

void Cpu::batch_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x,
                          const View& mean, const View& var, const View& w, double eps, bool training) {
  with_floating("batch_norm", x.dtype, [&]<class S> {
    differentiate<compute_type<S>>({dx, dw, db, dy, x, mean, var, w, eps, training});
  });
}

void Cpu::batch_norm_relu(const View& y, const View& x, const View& added, const View& mean, const View& var,
                          const View& w, const View& b, double eps) {
  with_floating("batch_norm", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const DenseInput<T> in(x), more(added);
    const DenseOutput<T> out(y);
    const Factors<T> factors(mean, var, w, b, eps);
    const auto relu = [](T v) { return v < T(0) ? T(0) : v; };
    if (const T* const beside = more.data(); beside != nullptr)
      normalise(x.shape, out.data(), in.data(), factors, [=](T v, int64_t i) { return relu(v + beside[i]); });
    else
      normalise(x.shape, out.data(), in.data(), factors, [=](T v, int64_t) { return relu(v); });
    out.store();
  });
}

void Cpu::batch_norm_relu_grad(const View& dx, const View& d_added, const View& dw, const View& db, const View& dy,
                               const View& y, const View& x, const View& mean, const View& var, const View& w,
                               double eps, bool training) {
  with_floating("batch_norm", x.dtype, [&]<class S> {
    differentiate<compute_type<S>>({dx, dw, db, dy, x, mean, var, w, eps, training, y, d_added});
  });
}

}  // namespace loom
