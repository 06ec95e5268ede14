#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>
#include <loom/accelerators/cuda/unfold.h>

namespace loom::cuda {

namespace {

// An extent that indices are split by: fast where they have 32 bits.
struct Extent {
  int64_t size = 1;
  Divider divider;
  Extent() = default;
  explicit Extent(int64_t n) : size(n), divider(static_cast<uint32_t>(std::min<int64_t>(n, 1 << 30))) {}
};

// index % extent; index becomes index / extent.
template <class I>
__device__ __forceinline__ int split(I& index, const Extent& extent) {
  I rest;
  if constexpr (sizeof(I) == 4)
    rest = extent.divider.quotient(index);
  else
    rest = index / extent.size;
  const I position = index - rest * static_cast<I>(extent.size);
  index = rest;
  return static_cast<int>(position);
}

struct Geometry {
  Extent images, channels, height, width, kernel_h, kernel_w, out_height, out_width;
  int stride[2], padding[2], dilation[2];
  int64_t x_strides[4];  // in elements

  Geometry(const View& x, const cpu::ConvShape& s)
      : images(x.shape[0]),
        channels(s.channels),
        height(s.height),
        width(s.width),
        kernel_h(s.kernel_h),
        kernel_w(s.kernel_w),
        out_height(s.out_height),
        out_width(s.out_width) {
    for (int i = 0; i < 2; ++i) {
      stride[i] = static_cast<int>(s.g.stride[static_cast<size_t>(i)]);
      padding[i] = static_cast<int>(s.g.padding[static_cast<size_t>(i)]);
      dilation[i] = static_cast<int>(s.g.dilation[static_cast<size_t>(i)]);
    }
    for (int i = 0; i < 4; ++i) x_strides[i] = x.strides[i];
  }
};

// T: of the elements' size. I: holds their number.
template <class T, class I, bool images_inside>
__global__ void __launch_bounds__(threads_per_block) unfold_kernel(T* columns, const T* x, Geometry g, I count) {
  for_each_item(count, [&](I item) {
    I i = item;
    const int ow = split(i, g.out_width), oh = split(i, g.out_height);
    int n = images_inside ? split(i, g.images) : 0;
    const int kw = split(i, g.kernel_w), kh = split(i, g.kernel_h), c = split(i, g.channels);
    if constexpr (!images_inside) n = static_cast<int>(i);
    const int64_t h = int64_t{oh} * g.stride[0] - g.padding[0] + int64_t{kh} * g.dilation[0];
    const int64_t w = int64_t{ow} * g.stride[1] - g.padding[1] + int64_t{kw} * g.dilation[1];
    const bool inside = h >= 0 && h < g.height.size && w >= 0 && w < g.width.size;
    columns[item] =
        inside ? x[n * g.x_strides[0] + c * g.x_strides[1] + h * g.x_strides[2] + w * g.x_strides[3]] : T(0);
  });
}

// The output that tap k of an element at `at` went to, or -1.
__device__ __forceinline__ int output_of(int at, int k, int stride, int padding, int dilation, int outputs) {
  const int shifted = at + padding - k * dilation, out = shifted / stride;
  return shifted >= 0 && out * stride == shifted && out < outputs ? out : -1;
}

template <class T, class I>
__global__ void __launch_bounds__(threads_per_block)
    fold_kernel(T* x, const compute_type<T>* columns, Geometry g, I count) {
  for_each_item(count, [&](I item) {
    I i = item;
    const int w = split(i, g.width), h = split(i, g.height), c = split(i, g.channels);
    const auto n = static_cast<int64_t>(i);
    const int out_height = static_cast<int>(g.out_height.size), out_width = static_cast<int>(g.out_width.size);
    const int64_t plane = int64_t{out_height} * out_width;
    const int kernel_h = static_cast<int>(g.kernel_h.size), kernel_w = static_cast<int>(g.kernel_w.size);
    const compute_type<T>* const own = columns + (n * g.channels.size + c) * kernel_h * kernel_w * plane;
    compute_type<T> sum = 0;
    for (int kh = 0; kh < kernel_h; ++kh) {
      const int oh = output_of(h, kh, g.stride[0], g.padding[0], g.dilation[0], out_height);
      if (oh < 0) continue;
      for (int kw = 0; kw < kernel_w; ++kw) {
        const int ow = output_of(w, kw, g.stride[1], g.padding[1], g.dilation[1], out_width);
        if (ow >= 0) sum += own[(int64_t{kh} * kernel_w + kw) * plane + oh * out_width + ow];
      }
    }
    x[n * g.x_strides[0] + c * g.x_strides[1] + h * g.x_strides[2] + w * g.x_strides[3]] = convert<T>(sum);
  });
}

// Calls f.operator()<I>() with the unsigned type that counts so many items, and the steps of a grid beyond them.
template <class F>
void with_index(int64_t count, const F& f) {
  if (count < int64_t{1} << 30) return f.template operator()<uint32_t>();
  f.template operator()<uint64_t>();
}

}  // namespace

void unfold(Gpu& gpu, void* columns, Columns order, const View& x, const cpu::ConvShape& s) {
  const int64_t count = x.shape[0] * s.channels * s.kernel_h * s.kernel_w * s.out_plane();
  if (count == 0) return;
  const Geometry g(x, s);
  with_bits(x.dtype, [&]<class T> {
    with_index(count, [&]<class I> {
      const auto kernel = order == Columns::images_inside ? &unfold_kernel<T, I, true> : &unfold_kernel<T, I, false>;
      launch(gpu, "conv2d", kernel, grid_for(gpu, count), threads_per_block, 0, static_cast<T*>(columns),
             x.as<const T>(), g, static_cast<I>(count));
    });
  });
}

void fold(Gpu& gpu, const View& x, const void* columns, const cpu::ConvShape& s) {
  const int64_t count = x.numel();
  if (count == 0) return;
  const Geometry g(x, s);
  with_floating("conv2d_grad_input", x.dtype, [&]<class T> {
    with_index(count, [&]<class I> {
      launch(gpu, "conv2d_grad_input", &fold_kernel<T, I>, grid_for(gpu, count), threads_per_block, 0, x.as<T>(),
             static_cast<const compute_type<T>*>(columns), g, static_cast<I>(count));
    });
  });
}

}  // namespace loom::cuda
