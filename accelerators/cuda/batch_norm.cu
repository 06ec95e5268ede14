// Batch norm: statistics, normalisation and gradients, of [N, C, L] in either order of memory.
#include <array>
#include <initializer_list>

#include <loom/accelerators/cuda/channels.h>
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dense.h>
#include <loom/accelerators/cuda/row_values.h>

namespace loom {

namespace {

using cuda::Channels;
using cuda::channels_last;
using cuda::Divider;
using cuda::Pack;
using cuda::RowValues;
using cuda::Run;
using cuda::threads_per_block;

constexpr const char* name = "batch_norm";

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
    const auto run = cuda::read_run<count>(x + at);
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
    const auto run = cuda::read_run<count>(x + at);
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

// Sums of dy * (x - mean) and of dy.
template <class S>
struct GradSums {
  using T = compute_type<S>;
  struct State {
    T along, plain;
  };
  const S *dy, *x;
  const T* mean;

  __device__ State none() const { return {T(0), T(0)}; }
  __device__ State join(const State& a, const State& b) const { return {a.along + b.along, a.plain + b.plain}; }
  template <int count>
  __device__ void add_run(State& state, int64_t at, int64_t c) const {
    const auto g = cuda::read_run<count>(dy + at), v = cuda::read_run<count>(x + at);
    const T m = mean[c];
#pragma unroll
    for (int j = 0; j < count; ++j) add(state, g.items[j], v.items[j], m);
  }
  template <int count>
  __device__ void add_each(State (&states)[count], int64_t at, int64_t c) const {
    const auto g = cuda::read_run<count>(dy + at), v = cuda::read_run<count>(x + at);
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
    return {cuda::read_run<count>(x + at)};
  }
  template <int count>
  static __device__ T value(const In<count>& in, int j, const Factors<T>& f) {
    return (static_cast<T>(in.x.items[j]) - f.mean) * f.scale + f.shift;
  }
};

// dx = scale * (dy - shift - (x - mean) * slope)
template <class S>
struct NormalGrad {
  using T = compute_type<S>;
  const S *dy, *x;
  template <int count>
  struct In {
    Run<S, count> dy, x;
  };
  template <int count>
  __device__ In<count> read(int64_t at) const {
    return {cuda::read_run<count>(dy + at), cuda::read_run<count>(x + at)};
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
  cuda::for_each_item(channels, [&](int64_t c) {
    const T scale = cuda::inverse_root(var.template get<T>(c) + eps) * or_one<T>(w, c);
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
    const T rstd = cuda::inverse_root(var.template get<T>(c) + eps), along = state.along * rstd;
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
  cuda::for_each_item(numel / width, [&](uint32_t i) {
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
    cuda::write_run(y + at, out);
  });
}

// f_at(offset): the function of elements from `offset` on.
template <class S, class F>
void apply(cuda::Gpu& gpu, const Channels& x, S* y, bool aligned, const Factors<compute_type<S>>* factors,
           const F& f_at) {
  const int64_t sample = x.count * x.length;
  int64_t together = std::max<int64_t>(1, std::numeric_limits<int32_t>::max() / sample);
  if (together > 16) together = together / 16 * 16;  // pieces begin on 16-byte boundaries
  for (int64_t r = 0; r < x.rows; r += together) {
    const int64_t at = r * sample, numel = std::min(together, x.rows - r) * sample;
    const auto run = [&]<int width>(const auto& f) {
      cuda::launch(gpu, name, &apply_kernel<S, width, std::decay_t<decltype(f)>>, cuda::grid_for(gpu, numel / width),
                   threads_per_block, 0, y + at, f, factors, static_cast<uint32_t>(numel),
                   static_cast<uint32_t>(x.length), static_cast<uint32_t>(x.count),
                   Divider(static_cast<uint32_t>(x.length)), Divider(static_cast<uint32_t>(x.count)));
    };
    constexpr int width = Pack<S>::width;
    if (aligned && at % width == 0 && numel % width == 0)
      run.template operator()<width>(f_at(at));
    else
      run.template operator()<1>(f_at(at));
  }
}

// Views that all have their channels last need no copies; else each is [N, C, L] without gaps.
bool all_last(std::initializer_list<const View*> views) {
  const bool last = std::ranges::all_of(views, [](const View* v) { return v->data == nullptr || channels_last(*v); });
  const View& x = **views.begin();
  return last && !(x.shape[2] != 1 && x.is_contiguous());  // one channel: both
}
// The same memory as a view that is contiguous where the channels are last.
View in_order(View x, bool last) {
  if (!last || x.data == nullptr) return x;
  std::swap(x.shape[1], x.shape[2]);
  x.strides = row_major_strides(x.shape);
  return x;
}

}  // namespace

void Cuda::batch_statistics(const View& mean, const View& var, const View& x) {
  with_floating(name, x.dtype, [&]<class S> {
    const bool last = all_last({&x});
    const Channels channels(x.shape, last);
    const cuda::DenseInput in(gpu_, *this, in_order(x, last), x.dtype);
    cuda::for_each_channel<S>(gpu_, channels, cuda::is_aligned(in.as<S>()), true, Moments<S>{in.as<S>()},
                              KeepMoments<S>{RowValues(mean), RowValues(var)});
  });
}

void Cuda::batch_norm(const View& y, const View& x, const View& mean, const View& var, const View& w, const View& b,
                      double eps) {
  with_floating(name, x.dtype, [&]<class S> {
    using T = compute_type<S>;
    if (x.numel() == 0) return;
    const bool last = all_last({&x, &y});
    const Channels channels(x.shape, last);
    const cuda::DenseInput in(gpu_, *this, in_order(x, last), x.dtype);
    const cuda::DenseOutput out(gpu_, *this, in_order(y, last), y.dtype);
    const cuda::Scratch memory(gpu_, static_cast<size_t>(channels.count) * sizeof(Factors<T>));
    Factors<T>* const factors = memory.as<Factors<T>>();
    cuda::launch(gpu_, name, &factors_kernel<T>, cuda::grid_for(gpu_, channels.count), threads_per_block, 0, factors,
                 channels.count, RowValues(mean), RowValues(var), RowValues(w), RowValues(b), static_cast<T>(eps));
    const bool aligned = cuda::is_aligned(in.as<S>()) && cuda::is_aligned(out.as<S>());
    apply<S>(gpu_, channels, out.as<S>(), aligned, factors, [&](int64_t at) { return Normal<S>{in.as<S>() + at}; });
    out.store();
  });
}

void Cuda::batch_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x,
                           const View& mean, const View& var, const View& w, double eps, bool training) {
  with_floating(name, x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const bool last = all_last({&x, &dy, &dx});
    const Channels channels(x.shape, last);
    const cuda::DenseInput g(gpu_, *this, in_order(dy, last), x.dtype), in(gpu_, *this, in_order(x, last), x.dtype),
        mean_in(gpu_, *this, mean, dtype_of<T>());
    const cuda::DenseOutput out(gpu_, *this, in_order(dx, last), x.dtype);
    const cuda::Scratch memory(gpu_, static_cast<size_t>(channels.count) * sizeof(Factors<T>));
    Factors<T>* const factors = memory.as<Factors<T>>();
    const bool sums = training || dw.data != nullptr || db.data != nullptr;
    const double count = static_cast<double>(channels.rows) * static_cast<double>(channels.length);
    const bool inputs_aligned = cuda::is_aligned(g.as<S>()) && cuda::is_aligned(in.as<S>());
    cuda::for_each_channel<S>(
        gpu_, channels, inputs_aligned, sums, GradSums<S>{g.as<S>(), in.as<S>(), mean_in.as<T>()},
        KeepGrads<S>{factors, RowValues(dw), RowValues(db), RowValues(mean), RowValues(var), RowValues(w),
                     static_cast<T>(eps), static_cast<T>(training ? 1 / count : 0)});
    if (dx.data == nullptr || dx.numel() == 0) return;
    apply<S>(gpu_, channels, out.as<S>(), inputs_aligned && cuda::is_aligned(out.as<S>()), factors, [&](int64_t at) {
      return NormalGrad<S>{g.as<S>() + at, in.as<S>() + at};
    });
    out.store();
  });
}

}  // namespace loom
