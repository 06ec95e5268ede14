// Pooling over planes and its gradients: a thread a few elements of a column of the output, whose windows lie in the
// same columns of the input. Gradients are gathered from the windows
// that an input lies in, in their order, so that none are added by two threads.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom {

namespace {

using cuda::threads_per_block;

// An image's element: number n, channel, row, column.
struct Place {
  int32_t n, c, h, w;
};

constexpr int32_t rows_per_thread = 4;

// The first rows of what threads do of an output [N, C, H, W], in the order of its memory: channels last, or planes.
struct Order {
  bool channels_last;
  uint32_t count;
  std::array<uint32_t, 3> extents;  // innermost first, without N
  std::array<cuda::Divider, 3> by;

  explicit Order(const View& y)
      : channels_last(y.shape[1] > 1 && y.strides[1] == 1 && y.strides[3] != 1),
        count(static_cast<uint32_t>(y.shape[0])) {
    const auto c = static_cast<uint32_t>(y.shape[1]), w = static_cast<uint32_t>(y.shape[3]);
    const auto h = static_cast<uint32_t>((y.shape[2] + rows_per_thread - 1) / rows_per_thread);
    extents = channels_last ? std::array{c, w, h} : std::array{w, h, c};
    for (size_t i = 0; i < 3; ++i) {
      by[i] = cuda::Divider(extents[i]);
      count *= extents[i];
    }
  }
  __device__ Place at(uint32_t i) const {
    int32_t position[3];
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      const uint32_t rest = by[k].quotient(i);
      position[k] = static_cast<int32_t>(i - rest * extents[k]);
      i = rest;
    }
    const auto n = static_cast<int32_t>(i);
    return channels_last ? Place{n, position[0], position[2] * rows_per_thread, position[1]}
                         : Place{n, position[2], position[1] * rows_per_thread, position[0]};
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
  // Past the last row of the thread that begins at p.
  __device__ int32_t end(const Place& p) const {
    return height - p.h < rows_per_thread ? height : p.h + rows_per_thread;
  }
};

// Windows along one side.
struct Side {
  int32_t kernel, stride, padding, dilation, extent, out;
  cuda::Divider by_stride;
  Side(const PoolGeometry& g, size_t side, int64_t in, int64_t windows)
      : kernel(static_cast<int32_t>(g.kernel[side])),
        stride(static_cast<int32_t>(g.stride[side])),
        padding(static_cast<int32_t>(g.padding[side])),
        dilation(static_cast<int32_t>(g.dilation[side])),
        extent(static_cast<int32_t>(in)),
        out(static_cast<int32_t>(windows)),
        by_stride(static_cast<uint32_t>(stride)) {}

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
    const auto windows = [&](int32_t n) { return static_cast<int32_t>(by_stride.quotient(static_cast<uint32_t>(n))); };
    const int32_t reach = position + padding - (kernel - 1) * dilation;
    const int32_t first = reach > 0 ? windows(reach + stride - 1) : 0, last = windows(position + padding) + 1;
    return {first, last < out ? last : out, 0};
  }
  __device__ Window all() const { return {0, out, 0}; }
  bool has_empty_windows() const {
    for (int32_t o = 0; o < out; ++o)
      if (window(o).inside() == 0) return true;
    return false;
  }
};

// As torch: the first of equals, but a later NaN takes over.
template <class S>
__global__ void __launch_bounds__(threads_per_block)
    max_kernel(Order order, Images<S> y, Images<int64_t> index, Images<const S> x, Side rows, Side columns) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](uint32_t i) {
    Place p = order.at(i);
    const auto c = columns.window(p.w);
    const S* const plane = x.plane(p);
    for (const int32_t end = y.end(p); p.h < end; ++p.h) {
      const auto r = rows.window(p.h);
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
    }
  });
}

// Windows that lie in the padding alone name position 0, which none of them covers: where there are such, that position
// looks at all windows.
template <class S>
__global__ void __launch_bounds__(threads_per_block)
    max_grad_kernel(Order order, Images<S> dx, Images<const S> dy, Images<const int64_t> index, Side rows, Side columns,
                    bool empty_windows) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](uint32_t i) {
    Place p = order.at(i);
    const auto own_columns = columns.over(p.w);
    const S* const gradient = dy.plane(p);
    const int64_t* const winner = index.plane(p);
    for (const int32_t end = dx.end(p); p.h < end; ++p.h) {
      const int64_t position = int64_t{p.h} * dx.width + p.w;
      const bool all = empty_windows && position == 0;
      const auto r = all ? rows.all() : rows.over(p.h), c = all ? columns.all() : own_columns;
      T sum = 0;
      for (int32_t h = r.begin; h < r.end; ++h)
        for (int32_t w = c.begin; w < c.end; ++w)
          if (winner[index.offset(h, w)] == position) sum += static_cast<T>(gradient[dy.offset(h, w)]);
      dx.at(p) = cuda::convert<S>(sum);
    }
  });
}

template <class T>
__device__ T divisor(const Side::Window& r, const Side::Window& c, bool count_padding) {
  return static_cast<T>(count_padding ? int64_t{r.span} * c.span : int64_t{r.inside()} * c.inside());
}

template <class S>
__global__ void __launch_bounds__(threads_per_block)
    average_kernel(Order order, Images<S> y, Images<const S> x, Side rows, Side columns, bool count_padding) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](uint32_t i) {
    Place p = order.at(i);
    const auto c = columns.window(p.w);
    const S* const plane = x.plane(p);
    for (const int32_t end = y.end(p); p.h < end; ++p.h) {
      const auto r = rows.window(p.h);
      T sum = 0;
      for (int32_t h = r.begin; h < r.end; ++h) {
        T row = 0;
        for (int32_t w = c.begin; w < c.end; ++w) row += static_cast<T>(plane[x.offset(h, w)]);
        sum += row;
      }
      y.at(p) = cuda::convert<S>(sum / divisor<T>(r, c, count_padding));
    }
  });
}

template <class S>
__global__ void __launch_bounds__(threads_per_block)
    average_grad_kernel(Order order, Images<S> dx, Images<const S> dy, Side rows, Side columns, bool count_padding) {
  using T = compute_type<S>;
  cuda::for_each_item(order.count, [&](uint32_t i) {
    Place p = order.at(i);
    const auto c = columns.over(p.w);
    const S* const gradient = dy.plane(p);
    for (const int32_t end = dx.end(p); p.h < end; ++p.h) {
      const auto r = rows.over(p.h);
      T sum = 0;
      for (int32_t h = r.begin; h < r.end; ++h) {
        const auto row = rows.window(h);
#pragma unroll 1
        for (int32_t w = c.begin; w < c.end; ++w)
          sum += static_cast<T>(gradient[dy.offset(h, w)]) / divisor<T>(row, columns.window(w), count_padding);
      }
      dx.at(p) = cuda::convert<S>(sum);
    }
  });
}

// Calls f<S>(views) with the type of the elements, for as many images and channels at a time as 31 bits can count.
template <size_t N, class F>
void in_parts(const char* op, const std::array<View, N>& views, const F& f) {
  if (views[0].numel() == 0) return;
  if (views[0].numel() <= std::numeric_limits<int32_t>::max())
    return with_floating(op, views[0].dtype, [&]<class S> { f.template operator()<S>(views); });
  const int dim = views[0].shape[0] > 1 ? 0 : 1;
  const int64_t half = views[0].shape[dim] / 2;
  check(half > 0, op, ": planes of 2^31 elements are not implemented on cuda");
  std::array<View, N> front = views, back = views;
  for (size_t k = 0; k < N; ++k) {
    front[k].shape[dim] = half;
    back[k].shape[dim] -= half;
    back[k].data =
        views[k].template as<char>() + half * views[k].strides[dim] * static_cast<int64_t>(item_size(views[k].dtype));
  }
  in_parts(op, front, f);
  in_parts(op, back, f);
}

}  // namespace

void Cuda::max_pool2d(const View& y, const View& index, const View& x, const PoolGeometry& g) {
  const Side rows(g, 0, x.shape[2], y.shape[2]), columns(g, 1, x.shape[3], y.shape[3]);
  in_parts<3>("max_pool2d", {y, index, x}, [&]<class S>(const std::array<View, 3>& v) {
    cuda::launch(gpu_, "max_pool2d", &max_kernel<S>, cuda::grid_for(gpu_, Order(v[0]).count), threads_per_block, 0,
                 Order(v[0]), Images<S>(v[0]), Images<int64_t>(v[1]), Images<const S>(v[2]), rows, columns);
  });
}

void Cuda::max_pool2d_grad(const View& dx, const View& dy, const View& index, const PoolGeometry& g) {
  const Side rows(g, 0, dx.shape[2], dy.shape[2]), columns(g, 1, dx.shape[3], dy.shape[3]);
  const bool empty_windows = rows.has_empty_windows() || columns.has_empty_windows();
  in_parts<3>("max_pool2d", {dx, dy, index}, [&]<class S>(const std::array<View, 3>& v) {
    cuda::launch(gpu_, "max_pool2d", &max_grad_kernel<S>, cuda::grid_for(gpu_, Order(v[0]).count), threads_per_block, 0,
                 Order(v[0]), Images<S>(v[0]), Images<const S>(v[1]), Images<const int64_t>(v[2]), rows, columns,
                 empty_windows);
  });
}

void Cuda::avg_pool2d(const View& y, const View& x, const PoolGeometry& g) {
  const Side rows(g, 0, x.shape[2], y.shape[2]), columns(g, 1, x.shape[3], y.shape[3]);
  in_parts<2>("avg_pool2d", {y, x}, [&]<class S>(const std::array<View, 2>& v) {
    cuda::launch(gpu_, "avg_pool2d", &average_kernel<S>, cuda::grid_for(gpu_, Order(v[0]).count), threads_per_block, 0,
                 Order(v[0]), Images<S>(v[0]), Images<const S>(v[1]), rows, columns, g.count_include_pad);
  });
}

void Cuda::avg_pool2d_grad(const View& dx, const View& dy, const PoolGeometry& g) {
  const Side rows(g, 0, dx.shape[2], dy.shape[2]), columns(g, 1, dx.shape[3], dy.shape[3]);
  in_parts<2>("avg_pool2d", {dx, dy}, [&]<class S>(const std::array<View, 2>& v) {
    cuda::launch(gpu_, "avg_pool2d", &average_grad_kernel<S>, cuda::grid_for(gpu_, Order(v[0]).count),
                 threads_per_block, 0, Order(v[0]), Images<S>(v[0]), Images<const S>(v[1]), rows, columns,
                 g.count_include_pad);
  });
}

}  // namespace loom
