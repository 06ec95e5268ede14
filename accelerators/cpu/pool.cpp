// Max and average pooling over planes: dense [N * C, H, W].
#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

struct Planes {
  int64_t count, height, width, out_height, out_width;
  Planes(const Dims& x, const Dims& y)
      : count(x[0] * x[1]), height(x[2]), width(x[3]), out_height(y[2]), out_width(y[3]) {}
  int64_t size() const { return height * width; }
  int64_t out_size() const { return out_height * out_width; }
  template <class F>
  void for_each(int64_t taps, const F& f) const {
    parallel_for(count, grain_of(size() + out_size() * taps), [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) f(p);
    });
  }
};

// What one window covers along one side: the positions begin, begin + step, ... < end of one window along one side that
// lie in the input; `span` counts the window's extent within input and padding, which is what count_include_pad divides
// by.
struct Window {
  int64_t begin, end, span;
  Window(const PoolGeometry& g, int side, int64_t out, int64_t extent) {
    const auto s = static_cast<size_t>(side);
    const int64_t from = out * g.stride[s] - g.padding[s], step = g.dilation[s];
    const int64_t to = std::min(from + (g.kernel[s] - 1) * step + 1, extent + g.padding[s]);
    span = to - from;
    begin = from >= 0 ? from : from + (-from + step - 1) / step * step;
    end = std::min(to, extent);
  }
  int64_t inside() const { return std::max<int64_t>(end - begin, 0); }
};

// The windows of all outputs along each side, which every plane shares.
struct Windows {
  std::vector<Window> rows, columns;
  Windows(const Planes& p, const PoolGeometry& g) {
    for (int64_t oh = 0; oh < p.out_height; ++oh) rows.emplace_back(g, 0, oh, p.height);
    for (int64_t ow = 0; ow < p.out_width; ++ow) columns.emplace_back(g, 1, ow, p.width);
  }
};

// As torch: the first of equals, but a later NaN takes over.
template <class T>
bool wins(T value, T best) {
  return value > best || value != value;
}

template <class T>
void max_plane(T* y, int64_t* index, const T* x, int64_t width, const Windows& windows, const PoolGeometry& g) {
  for (const Window& rows : windows.rows)
    for (const Window& columns : windows.columns) {
      T best = -std::numeric_limits<T>::infinity();
      int64_t at = rows.inside() > 0 && columns.inside() > 0 ? rows.begin * width + columns.begin : 0;
      for (int64_t h = rows.begin; h < rows.end; h += g.dilation[0])
        for (int64_t w = columns.begin; w < columns.end; w += g.dilation[1]) {
          const T value = x[h * width + w];
          const bool take = wins(value, best);
          best = take ? value : best;
          at = take ? h * width + w : at;
        }
      *y++ = best;
      *index++ = at;
    }
}

// Kernel 2, stride 2, no padding: selects instead of loops and branches.
template <class T>
void max_plane_2x2(T* y, int64_t* index, const T* x, const Planes& p) {
  for (int64_t oh = 0; oh < p.out_height; ++oh) {
    const int64_t start = 2 * oh * p.width;
    const T *upper = x + start, *lower = upper + p.width;
    for (int64_t ow = 0; ow < p.out_width; ++ow) {
      const T a = upper[2 * ow], b = upper[2 * ow + 1], c = lower[2 * ow], d = lower[2 * ow + 1];
      T best = a;
      int64_t offset = 0;
      const bool take_b = wins(b, best);
      best = take_b ? b : best;
      offset = take_b ? 1 : offset;
      const bool take_c = wins(c, best);
      best = take_c ? c : best;
      offset = take_c ? p.width : offset;
      const bool take_d = wins(d, best);
      best = take_d ? d : best;
      offset = take_d ? p.width + 1 : offset;
      y[ow] = best;
      index[ow] = start + 2 * ow + offset;
    }
    y += p.out_width;
    index += p.out_width;
  }
}

bool is_2x2(const PoolGeometry& g, const Planes& p) {
  constexpr std::array<int64_t, 2> one{1, 1}, two{2, 2}, none{0, 0};
  return g.kernel == two && g.stride == two && g.padding == none && g.dilation == one && 2 * p.out_height <= p.height &&
         2 * p.out_width <= p.width;
}

template <class T>
T average_divisor(const Window& rows, const Window& columns, const PoolGeometry& g) {
  return static_cast<T>(g.count_include_pad ? rows.span * columns.span : rows.inside() * columns.inside());
}

template <class T>
void average_plane(T* y, const T* x, int64_t width, const Windows& windows, const PoolGeometry& g) {
  for (const Window& rows : windows.rows)
    for (const Window& columns : windows.columns) {
      T sum = 0;
      for (int64_t h = rows.begin; h < rows.end; ++h) {
        T row = 0;
        for (int64_t w = columns.begin; w < columns.end; ++w) row += x[h * width + w];
        sum += row;
      }
      *y++ = sum / average_divisor<T>(rows, columns, g);
    }
}

template <class T>
void average_plane_grad(T* dx, const T* dy, int64_t width, const Windows& windows, const PoolGeometry& g) {
  for (const Window& rows : windows.rows)
    for (const Window& columns : windows.columns) {
      const T share = *dy++ / average_divisor<T>(rows, columns, g);
      for (int64_t h = rows.begin; h < rows.end; ++h)
        for (int64_t w = columns.begin; w < columns.end; ++w) dx[h * width + w] += share;
    }
}

}  // namespace

void Cpu::max_pool2d(const View& y, const View& index, const View& x, const PoolGeometry& g) {
  with_floating("max_pool2d", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const DenseInput<T> in(x);
    const DenseOutput<T> out(y);
    const DenseOutput<int64_t> at(index);
    const Planes p(x.shape, y.shape);
    const Windows windows(p, g);
    const bool fast = is_2x2(g, p);
    p.for_each(g.kernel[0] * g.kernel[1], [&](int64_t i) {
      T* const to = out.data() + i * p.out_size();
      int64_t* const where = at.data() + i * p.out_size();
      if (fast)
        max_plane_2x2(to, where, in.data() + i * p.size(), p);
      else
        max_plane(to, where, in.data() + i * p.size(), p.width, windows, g);
    });
    out.store();
    at.store();
  });
}

void Cpu::avg_pool2d(const View& y, const View& x, const PoolGeometry& g) {
  with_floating("avg_pool2d", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const DenseInput<T> in(x);
    const DenseOutput<T> out(y);
    const Planes p(x.shape, y.shape);
    const Windows windows(p, g);
    p.for_each(g.kernel[0] * g.kernel[1], [&](int64_t i) {
      average_plane(out.data() + i * p.out_size(), in.data() + i * p.size(), p.width, windows, g);
    });
    out.store();
  });
}

void Cpu::avg_pool2d_grad(const View& dx, const View& dy, const PoolGeometry& g) {
  with_floating("avg_pool2d", dy.dtype, [&]<class S> {
    using T = compute_type<S>;
    const DenseInput<T> in(dy);
    const DenseOutput<T> out(dx);
    const Planes p(dx.shape, dy.shape);
    const Windows windows(p, g);
    p.for_each(g.kernel[0] * g.kernel[1], [&](int64_t i) {
      std::fill_n(out.data() + i * p.size(), p.size(), T(0));
      average_plane_grad(out.data() + i * p.size(), in.data() + i * p.out_size(), p.width, windows, g);
    });
    out.store();
  });
}

}  // namespace loom
