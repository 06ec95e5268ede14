// What batch norm does with each element and each channel, as functors and the kernels that run them.
#pragma once

#include <loom/accelerators/cuda/channels.h>
#include <loom/accelerators/cuda/row_values.h>

#if defined(__CUDACC__)
namespace loom::cuda::batch_norm {

// Count, mean and squared deviations, put together as Chan, Golub and LeVeque (1979) do.
template <class S>
struct Moments {
  using T = compute_type<S>;
  struct State {
    T count, mean, squares;
  };
  const S* x;

  __device__ State none() const { return {T(0), T(0), T(0)}; }
  __device__ State join(const State& a, const State& b) const {
    const T n = a.count + b.count, share = n > T(0) ? b.count / n : T(0), step = b.mean - a.mean;
    return {n, a.mean + step * share, a.squares + b.squares + step * step * a.count * share};
  }
  template <int count>
  __device__ void add_run(State& state, int64_t at, int64_t) const {
    const auto run = read_run<count>(x + at);
    State own{static_cast<T>(count), T(0), T(0)};
#pragma unroll
    for (int j = 0; j < count; ++j) own.mean += static_cast<T>(run.items[j]);
    own.mean *= T(1) / static_cast<T>(count);
#pragma unroll
    for (int j = 0; j < count; ++j) {
      const T d = static_cast<T>(run.items[j]) - own.mean;
      own.squares += d * d;
    }
    state = join(state, own);
  }
  template <int count>
  __device__ void add_each(State (&states)[count], int64_t at, int64_t) const {
    const auto run = read_run<count>(x + at);
    const T n = states[0].count + T(1), share = T(1) / n;
#pragma unroll
    for (int j = 0; j < count; ++j) {
      const T value = static_cast<T>(run.items[j]), d = value - states[j].mean;
      states[j].count = n;
      states[j].mean += d * share;
      states[j].squares += d * (value - states[j].mean);
    }
  }
};

// A gradient; where a ReLU's result is given, as it is before the ReLU.
template <class S>
struct Gradient {
  const S *dy, *relu;  // relu: or null
  template <int count>
  __device__ __forceinline__ Run<S, count> read(int64_t at) const {
    auto run = read_run<count>(dy + at);
    if (relu == nullptr) return run;
    const auto y = read_run<count>(relu + at);
#pragma unroll
    for (int j = 0; j < count; ++j)
      if (static_cast<compute_type<S>>(y.items[j]) <= compute_type<S>(0)) run.items[j] = S(compute_type<S>(0));
    return run;
  }
  Gradient from(int64_t at) const { return {dy + at, relu != nullptr ? relu + at : nullptr}; }
};

// Sums of dy * (x - mean) and of dy.
template <class S>
struct GradSums {
  using T = compute_type<S>;
  struct State {
    T along, plain;
  };
  Gradient<S> dy;
  const S* x;
  const T* mean;

  __device__ State none() const { return {T(0), T(0)}; }
  __device__ State join(const State& a, const State& b) const { return {a.along + b.along, a.plain + b.plain}; }
  template <int count>
  __device__ void add_run(State& state, int64_t at, int64_t c) const {
    const auto g = dy.template read<count>(at), v = read_run<count>(x + at);
    const T m = mean[c];
#pragma unroll
    for (int j = 0; j < count; ++j) add(state, g.items[j], v.items[j], m);
  }
  template <int count>
  __device__ void add_each(State (&states)[count], int64_t at, int64_t c) const {
    const auto g = dy.template read<count>(at), v = read_run<count>(x + at);
#pragma unroll
    for (int j = 0; j < count; ++j) add(states[j], g.items[j], v.items[j], mean[c + j]);
  }
  static __device__ __forceinline__ void add(State& state, S g, S v, T m) {
    state.along += static_cast<T>(g) * (static_cast<T>(v) - m);
    state.plain += static_cast<T>(g);
  }
};

template <class S>
struct KeepMoments {
  RowValues mean, var;
  __device__ void operator()(int64_t c, const typename Moments<S>::State& state) const {
    mean.put(c, state.mean);
    var.put(c, state.squares / state.count);
  }
};

// What a channel's elements are worked on with.
template <class T>
struct alignas(16) Factors {
  T mean, scale, shift, slope;
};
template <class T>
__device__ __forceinline__ T or_one(const RowValues& w, int64_t c) {
  return w.data != nullptr ? w.template get<T>(c) : T(1);
}

// y = (x - mean) * scale + shift
template <class S>
struct Normal {
  using T = compute_type<S>;
  const S* x;
  template <int count>
  struct In {
    Run<S, count> x;
  };
  template <int count>
  __device__ In<count> read(int64_t at) const {
    return {read_run<count>(x + at)};
  }
  template <int count>
  static __device__ T value(const In<count>& in, int j, const Factors<T>& f) {
    return (static_cast<T>(in.x.items[j]) - f.mean) * f.scale + f.shift;
  }
};

// y = max((x - mean) * scale + shift + added, 0)
template <class S>
struct NormalRelu {
  using T = compute_type<S>;
  const S *x, *added;  // added: or null
  template <int count>
  struct In {
    Run<S, count> x, added;
  };
  template <int count>
  __device__ In<count> read(int64_t at) const {
    In<count> in{read_run<count>(x + at), {}};
    if (added != nullptr) in.added = read_run<count>(added + at);
    return in;
  }
  template <int count>
  static __device__ T value(const In<count>& in, int j, const Factors<T>& f) {
    const T y = (static_cast<T>(in.x.items[j]) - f.mean) * f.scale + f.shift + static_cast<T>(in.added.items[j]);
    return y < T(0) ? T(0) : y;  // NaN stays
  }
};

// dx = scale * (dy - shift - (x - mean) * slope)
template <class S>
struct NormalGrad {
  using T = compute_type<S>;
  Gradient<S> dy;
  const S* x;
  S* kept;  // or null: where dy goes as it was read
  template <int count>
  struct In {
    Run<S, count> dy, x;
  };
  template <int count>
  __device__ In<count> read(int64_t at) const {
    const In<count> in{dy.template read<count>(at), read_run<count>(x + at)};
    if (kept != nullptr) write_run(kept + at, in.dy);
    return in;
  }
  template <int count>
  static __device__ T value(const In<count>& in, int j, const Factors<T>& f) {
    return f.scale * (static_cast<T>(in.dy.items[j]) - f.shift - (static_cast<T>(in.x.items[j]) - f.mean) * f.slope);
  }
};

template <class T>
__global__ void __launch_bounds__(threads_per_block)
    factors_kernel(Factors<T>* factors, int64_t channels, RowValues mean, RowValues var, RowValues w, RowValues b,
                   T eps) {
  for_each_item(channels, [&](int64_t c) {
    const T scale = inverse_root(var.template get<T>(c) + eps) * or_one<T>(w, c);
    factors[c] = {mean.template get<T>(c), scale, b.data != nullptr ? b.template get<T>(c) : T(0), T(0)};
  });
}

// From the sums of a channel its share in dw and db, and what dx is made with.
template <class S>
struct KeepGrads {
  using T = compute_type<S>;
  Factors<T>* factors;
  RowValues dw, db, mean, var, w;
  T eps, over;  // over: 1 / elements of a channel, or 0 where the statistics are not the batch's
  __device__ void operator()(int64_t c, const typename GradSums<S>::State& state) const {
    const T rstd = inverse_root(var.template get<T>(c) + eps), along = state.along * rstd;
    if (dw.data != nullptr) dw.put(c, along);
    if (db.data != nullptr) db.put(c, state.plain);
    factors[c] = {mean.template get<T>(c), rstd * or_one<T>(w, c), state.plain * over, rstd * along * over};
  }
};

// All elements, `width` at a time, from one with which the first channel starts.
template <class S, int width, class F>
__global__ void __launch_bounds__(threads_per_block)
    apply_kernel(S* y, F f, const Factors<compute_type<S>>* factors, uint32_t numel, uint32_t length, uint32_t channels,
                 Divider by_length, Divider by_channels) {
  using T = compute_type<S>;
  for_each_item(numel / width, [&](uint32_t i) {
    const uint32_t at = i * width, row = by_length.quotient(at);
    uint32_t position = at - row * length, c = row - by_channels.quotient(row) * channels;
    const auto in = f.template read<width>(at);
    Factors<T> k = factors[c];
    Run<S, width> out;
#pragma unroll
    for (int j = 0; j < width; ++j) {
      out.items[j] = static_cast<S>(F::template value<width>(in, j, k));
      if (j + 1 < width && ++position == length) {
        position = 0;
        if (++c == channels) c = 0;
        k = factors[c];
      }
    }
    write_run(y + at, out);
  });
}

}  // namespace loom::cuda::batch_norm
#endif
