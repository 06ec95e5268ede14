// Batch norm: statistics, normalisation and gradients, of [N, C, L] in either order of memory; also with what is added
// and the ReLU that follow it.
#include <array>
#include <initializer_list>

#include <loom/accelerators/cuda/batch_norm.h>
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dense.h>

namespace loom {

namespace {

using namespace cuda::batch_norm;

using cuda::Channels;
using cuda::channels_last;
using cuda::Divider;
using cuda::Pack;
using cuda::RowValues;
using cuda::threads_per_block;

constexpr const char* name = "batch_norm";

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

struct Forward {
  const View &y, &x, &mean, &var, &w, &b;
  double eps;
  bool relu;
  View added;  // or null data
};

template <class S>
void normalise(cuda::Gpu& gpu, Accelerator& kernels, const Forward& o) {
  using T = compute_type<S>;
  const bool last = all_last({&o.x, &o.y, &o.added});
  const Channels channels(o.x.shape, last);
  const cuda::DenseInput in(gpu, kernels, in_order(o.x, last), o.x.dtype),
      added(gpu, kernels, in_order(o.added, last), o.x.dtype);
  const cuda::DenseOutput out(gpu, kernels, in_order(o.y, last), o.y.dtype);
  const cuda::Scratch memory(gpu, static_cast<size_t>(channels.count) * sizeof(Factors<T>));
  Factors<T>* const factors = memory.as<Factors<T>>();
  cuda::launch(gpu, name, &factors_kernel<T>, cuda::grid_for(gpu, channels.count), threads_per_block, 0, factors,
               channels.count, RowValues(o.mean), RowValues(o.var), RowValues(o.w), RowValues(o.b),
               static_cast<T>(o.eps));
  const S* const more = added.as<S>();
  const bool aligned = cuda::is_aligned(in.as<S>()) && cuda::is_aligned(out.as<S>()) && cuda::is_aligned(more);
  if (o.relu)
    apply<S>(gpu, channels, out.as<S>(), aligned, factors, [&](int64_t at) {
      return NormalRelu<S>{in.as<S>() + at, more != nullptr ? more + at : nullptr};
    });
  else
    apply<S>(gpu, channels, out.as<S>(), aligned, factors, [&](int64_t at) { return Normal<S>{in.as<S>() + at}; });
  out.store();
}

struct Backward {
  const View &dx, &dw, &db, &dy, &x, &mean, &var, &w;
  double eps;
  bool training;
  View relu, kept;  // or null data
};

template <class S>
void differentiate(cuda::Gpu& gpu, Accelerator& kernels, const Backward& o) {
  using T = compute_type<S>;
  const bool last = all_last({&o.x, &o.dy, &o.dx, &o.relu, &o.kept});
  const Channels channels(o.x.shape, last);
  const cuda::DenseInput g(gpu, kernels, in_order(o.dy, last), o.x.dtype),
      in(gpu, kernels, in_order(o.x, last), o.x.dtype), relu(gpu, kernels, in_order(o.relu, last), o.x.dtype),
      mean_in(gpu, kernels, o.mean, dtype_of<T>());
  const cuda::DenseOutput out(gpu, kernels, in_order(o.dx, last), o.x.dtype),
      kept(gpu, kernels, in_order(o.kept, last), o.x.dtype);
  const cuda::Scratch memory(gpu, static_cast<size_t>(channels.count) * sizeof(Factors<T>));
  Factors<T>* const factors = memory.as<Factors<T>>();
  const Gradient<S> gradient{g.as<S>(), relu.as<S>()};
  const bool sums = o.training || o.dw.data != nullptr || o.db.data != nullptr;
  const double count = static_cast<double>(channels.rows) * static_cast<double>(channels.length);
  const bool inputs_aligned =
      cuda::is_aligned(g.as<S>()) && cuda::is_aligned(in.as<S>()) && cuda::is_aligned(relu.as<S>());
  cuda::for_each_channel<S>(
      gpu, channels, inputs_aligned, sums, GradSums<S>{gradient, in.as<S>(), mean_in.as<T>()},
      KeepGrads<S>{factors, RowValues(o.dw), RowValues(o.db), RowValues(o.mean), RowValues(o.var), RowValues(o.w),
                   static_cast<T>(o.eps), static_cast<T>(o.training ? 1 / count : 0)});
  if (o.dx.data == nullptr || o.dx.numel() == 0) return;
  S* const keep = kept.as<S>();
  const bool aligned = inputs_aligned && cuda::is_aligned(out.as<S>()) && cuda::is_aligned(keep);
  apply<S>(gpu, channels, out.as<S>(), aligned, factors, [&](int64_t at) {
    return NormalGrad<S>{gradient.from(at), in.as<S>() + at, keep != nullptr ? keep + at : nullptr};
  });
  out.store();
  if (keep != nullptr) kept.store();
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
  if (x.numel() == 0) return;
  with_floating(name, x.dtype, [&]<class S> { normalise<S>(gpu_, *this, {y, x, mean, var, w, b, eps, false, {}}); });
}

void Cuda::batch_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x,
                           const View& mean, const View& var, const View& w, double eps, bool training) {
  with_floating(name, x.dtype, [&]<class S> {
    differentiate<S>(gpu_, *this, {dx, dw, db, dy, x, mean, var, w, eps, training, {}, {}});
  });
}

void Cuda::batch_norm_relu(const View& y, const View& x, const View& added, const View& mean, const View& var,
                           const View& w, const View& b, double eps) {
  if (x.numel() == 0) return;
  with_floating(name, x.dtype, [&]<class S> { normalise<S>(gpu_, *this, {y, x, mean, var, w, b, eps, true, added}); });
}

void Cuda::batch_norm_relu_grad(const View& dx, const View& d_added, const View& dw, const View& db, const View& dy,
                                const View& y, const View& x, const View& mean, const View& var, const View& w,
                                double eps, bool training) {
  const bool needs_room = dx.data == nullptr && d_added.data != nullptr;  // one pass writes both
  const cuda::Scratch room(gpu_, needs_room ? x.bytes() : 0);
  View to = needs_room ? x : dx;
  if (needs_room) to.data = room.as<void>();
  with_floating(name, x.dtype, [&]<class S> {
    differentiate<S>(gpu_, *this, {to, dw, db, dy, x, mean, var, w, eps, training, y, d_added});
  });
}

}  // namespace loom
