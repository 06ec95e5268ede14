// Pooling over planes and its gradients: a thread an element of the output. Gradients are gathered from the windows
// that an input lies in, in their order, so that none are added by two threads.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom {

namespace {

using cuda::threads_per_block;

// n / d of numbers of 32 bits where they fit.
template <class Index>
struct Divisor {
  int64_t d;
  Divisor() = default;
  explicit Divisor(int64_t by) : d(by) {}
  LOOM_HOST_DEVICE Index quotient(Index n) const { return n / static_cast<Index>(d); }
};
template <>
struct Divisor<uint32_t> : cuda::Divider {
  Divisor() = default;
  explicit Divisor(int64_t by) : cuda::Divider(static_cast<uint32_t>(by)) {}
};

// An image's element: number n, channel, row, column.
struct Place {
  int64_t n, c;
  int32_t h, w;
};

// Elements of an output [N, C, H, W] in the order of its memory: channels last, or planes.
template <class Index>
struct Order {
  bool channels_last;
  Index count;
  std::array<Index, 3> extents;  // innermost first, without N
  std::array<Divisor<Index>, 3> by;

  explicit Order(const View& y) : channels_last(y.shape[1] > 1 && y.strides[1] == 1 && y.strides[3] != 1) {
    const std::array<int, 3> dims = channels_last ? std::array{1, 3, 2} : std::array{3, 2, 1};
    count = static_cast<Index>(y.numel());
    for (size_t i = 0; i < 3; ++i) {
      extents[i] = static_cast<Index>(y.shape[dims[i]]);
      by[i] = Divisor<Index>(y.shape[dims[i]]);
    }
  }
  __device__ Place at(Index i) const {
    Index position[3];
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      const Index rest = by[k].quotient(i);
      position[k] = i - rest * extents[k];
      i = rest;
    }
    if (channels_last)
      return {static_cast<int64_t>(i), static_cast<int64_t>(position[0]), static_cast<int32_t>(position[2]),
              static_cast<int32_t>(position[1])};
    return {static_cast<int64_t>(i), static_cast<int64_t>(position[2]), static_cast<int32_t>(position[1]),
            static_cast<int32_t>(position[0])};
  }
};

// Images of any strides.
template <class T>
struct Images {
  T* data;
  std::array<int64_t, 4> strides;
  int32_t height, width;
  explicit Images(const View& v)
      : data(v.as<T>()),
        strides{v.strides[0], v.strides[1], v.strides[2], v.strides[3]},
        height(static_cast<int32_t>(v.shape[2])),
        width(static_cast<int32_t>(v.shape[3])) {}
  __device__ T* plane(const Place& p) const { return data + p.n * strides[0] + p.c * strides[1]; }
  __device__ int64_t offset(int32_t h, int32_t w) const { return h * strides[2] + w * strides[3]; }
  __device__ T& at(const Place& p) const { return plane(p)[offset(p.h, p.w)]; }
};

// Windows along one side.
struct Side {
  int32_t kernel, stride, padding, dilation, extent, out;
  Side(const PoolGeometry& g, size_t side, int64_t in, int64_t windows)
      : kernel(static_cast<int32_t>(g.kernel[side])),
        stride(static_cast<int32_t>(g.stride[side])),
        padding(static_cast<int32_t>(g.padding[side])),
        dilation(static_cast<int32_t>(g.dilation[side])),
        extent(static_cast<int32_t>(in)),
        out(static_cast<int32_t>(windows)) {}

  // As cpu/pool.h: positions begin, begin + dilation, ... < end inside; span counts padding too.
  struct Window {
    int32_t begin, end, span;
    LOOM_HOST_DEVICE int32_t inside() const { return end > begin ? end - begin : 0; }
  };
  LOOM_HOST_DEVICE Window window(int32_t o) const {
    const int32_t from = o * stride - padding;
    const int32_t last = from + (kernel - 1) * dilation + 1, to = last < extent + padding ? last : extent + padding;
    const int32_t begin = from >= 0 ? from : from + (-from + dilation - 1) / dilation * dilation;
    return {begin, to < extent ? to : extent, to - from};
  }
  // The windows [begin, end) that may cover a position.
  __device__ Window over(int32_t position) const {
    const int32_t reach = position + padding - (kernel - 1) * dilation;
    const int32_t first = reach > 0 ? (reach + stride - 1) / stride : 0, last = (position + padding) / stride + 1;
    return {first, last < out ? last : out, 0};
  }
  bool has_empty_windows() const {
    for (int32_t o = 0; o < out; ++o)
      if (window(o).inside() == 0) return true;
    return false;
  }
};

// As torch: the first of equals, but a later NaN takes over.
template <class S, class Index>
__global__ void __launch_bounds__(threads_per_block)
    max_kernel(Order<Index> order, Images<S> y, Images<int64_t> index, Images<const S> x, Side rows, Side columns) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](Index i) {
    const Place p = order.at(i);
    const auto r = rows.window(p.h), c = columns.window(p.w);
    const S* const plane = x.plane(p);
    T best = -std::numeric_limits<T>::infinity();
    int64_t at = r.inside() > 0 && c.inside() > 0 ? int64_t{r.begin} * x.width + c.begin : 0;
    for (int32_t h = r.begin; h < r.end; h += rows.dilation)
      for (int32_t w = c.begin; w < c.end; w += columns.dilation) {
        const T value = static_cast<T>(plane[x.offset(h, w)]);
        const bool wins = value > best || value != value;
        best = wins ? value : best;
        at = wins ? int64_t{h} * x.width + w : at;
      }
    y.at(p) = cuda::convert<S>(best);
    index.at(p) = at;
  });
}

// Windows that lie in the padding alone name position 0, which none of them covers: where there are such, that position
// looks at all windows.
template <class S, class Index>
__global__ void __launch_bounds__(threads_per_block)
    max_grad_kernel(Order<Index> order, Images<S> dx, Images<const S> dy, Images<const int64_t> index, Side rows,
                    Side columns, bool empty_windows) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](Index i) {
    const Place p = order.at(i);
    auto r = rows.over(p.h), c = columns.over(p.w);
    const int64_t position = int64_t{p.h} * dx.width + p.w;
    if (empty_windows && position == 0) {
      r = {0, rows.out, 0};
      c = {0, columns.out, 0};
    }
    const S* const gradient = dy.plane(p);
    const int64_t* const winner = index.plane(p);
    T sum = 0;
    for (int32_t h = r.begin; h < r.end; ++h)
      for (int32_t w = c.begin; w < c.end; ++w)
        if (winner[index.offset(h, w)] == position) sum += static_cast<T>(gradient[dy.offset(h, w)]);
    dx.at(p) = cuda::convert<S>(sum);
  });
}

template <class T>
__device__ T divisor(const Side::Window& r, const Side::Window& c, bool count_padding) {
  return static_cast<T>(count_padding ? int64_t{r.span} * c.span : int64_t{r.inside()} * c.inside());
}

template <class S, class Index>
__global__ void __launch_bounds__(threads_per_block)
    average_kernel(Order<Index> order, Images<S> y, Images<const S> x, Side rows, Side columns, bool count_padding) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](Index i) {
    const Place p = order.at(i);
    const auto r = rows.window(p.h), c = columns.window(p.w);
    const S* const plane = x.plane(p);
    T sum = 0;
    for (int32_t h = r.begin; h < r.end; ++h) {
      T row = 0;
      for (int32_t w = c.begin; w < c.end; ++w) row += static_cast<T>(plane[x.offset(h, w)]);
      sum += row;
    }
    y.at(p) = cuda::convert<S>(sum / divisor<T>(r, c, count_padding));
  });
}

template <class S, class Index>
__global__ void __launch_bounds__(threads_per_block)
    average_grad_kernel(Order<Index> order, Images<S> dx, Images<const S> dy, Side rows, Side columns,
                        bool count_padding) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](Index i) {
    const Place p = order.at(i);
    const auto r = rows.over(p.h), c = columns.over(p.w);
    const S* const gradient = dy.plane(p);
    T sum = 0;
    for (int32_t h = r.begin; h < r.end; ++h)
      for (int32_t w = c.begin; w < c.end; ++w)
        sum += static_cast<T>(gradient[dy.offset(h, w)]) / divisor<T>(rows.window(h), columns.window(w), count_padding);
    dx.at(p) = cuda::convert<S>(sum);
  });
}

// Calls f<S, Index>() with the type of the elements and the one that an output's elements are counted in.
template <class F>
void with_types(const char* op, const View& y, const F& f) {
  if (y.numel() == 0) return;
  with_floating(op, y.dtype, [&]<class S> {
    if (y.numel() <= std::numeric_limits<int32_t>::max())
      f.template operator()<S, uint32_t>();
    else
      f.template operator()<S, uint64_t>();
  });
}

}  // namespace

void Cuda::max_pool2d(const View& y, const View& index, const View& x, const PoolGeometry& g) {
  with_types("max_pool2d", y, [&]<class S, class Index> {
    cuda::launch(gpu_, "max_pool2d", &max_kernel<S, Index>, cuda::grid_for(gpu_, y.numel()), threads_per_block, 0,
                 Order<Index>(y), Images<S>(y), Images<int64_t>(index), Images<const S>(x),
                 Side(g, 0, x.shape[2], y.shape[2]), Side(g, 1, x.shape[3], y.shape[3]));
  });
}

void Cuda::max_pool2d_grad(const View& dx, const View& dy, const View& index, const PoolGeometry& g) {
  const Side rows(g, 0, dx.shape[2], dy.shape[2]), columns(g, 1, dx.shape[3], dy.shape[3]);
  const bool empty_windows = rows.has_empty_windows() || columns.has_empty_windows();
  with_types("max_pool2d", dx, [&]<class S, class Index> {
    cuda::launch(gpu_, "max_pool2d", &max_grad_kernel<S, Index>, cuda::grid_for(gpu_, dx.numel()), threads_per_block, 0,
                 Order<Index>(dx), Images<S>(dx), Images<const S>(dy), Images<const int64_t>(index), rows, columns,
                 empty_windows);
  });
}

void Cuda::avg_pool2d(const View& y, const View& x, const PoolGeometry& g) {
  with_types("avg_pool2d", y, [&]<class S, class Index> {
    cuda::launch(gpu_, "avg_pool2d", &average_kernel<S, Index>, cuda::grid_for(gpu_, y.numel()), threads_per_block, 0,
                 Order<Index>(y), Images<S>(y), Images<const S>(x), Side(g, 0, x.shape[2], y.shape[2]),
                 Side(g, 1, x.shape[3], y.shape[3]), g.count_include_pad);
  });
}

void Cuda::avg_pool2d_grad(const View& dx, const View& dy, const PoolGeometry& g) {
  with_types("avg_pool2d", dx, [&]<class S, class Index> {
    cuda::launch(gpu_, "avg_pool2d", &average_grad_kernel<S, Index>, cuda::grid_for(gpu_, dx.numel()),
                 threads_per_block, 0, Order<Index>(dx), Images<S>(dx), Images<const S>(dy),
                 Side(g, 0, dx.shape[2], dy.shape[2]), Side(g, 1, dx.shape[3], dy.shape[3]), g.count_include_pad);
  });
}

}  // namespace loom
