// SPDX-License-Identifier: Apache-2.0
// Average pooling over planes and its gradient.
#include <loom/accelerators/cpu/pool.h>

namespace loom {
using namespace cpu;

namespace {

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
