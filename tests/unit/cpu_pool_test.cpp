// SPDX-License-Identifier: Apache-2.0
#include "kernel_test.h"

using namespace kernel_test;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity(), not_a_number = std::numeric_limits<double>::quiet_NaN();

int64_t extent(const Dims& x, const PoolGeometry& g, int side, bool ceil) {
  const auto s = static_cast<size_t>(side);
  const int64_t room = x[2 + side] + 2 * g.padding[s] - g.dilation[s] * (g.kernel[s] - 1) - 1;
  int64_t out = (room + (ceil ? g.stride[s] - 1 : 0)) / g.stride[s] + 1;
  if (ceil && (out - 1) * g.stride[s] >= x[2 + side] + g.padding[s]) --out;  // a window must start in the input
  return out;
}
Dims pooled(const Dims& x, const PoolGeometry& g, bool ceil = false) {
  return {x[0], x[1], extent(x, g, 0, ceil), extent(x, g, 1, ceil)};
}

// f(y index, x index or -1 where the tap lies in the padding) for all taps.
template <class F>
void for_each_tap(const Dims& x, const Dims& y, const PoolGeometry& g, const F& f) {
  for (int64_t i = 0; i < y.numel(); ++i) {
    const int64_t plane = i / (y[2] * y[3]), oh = i / y[3] % y[2], ow = i % y[3];
    for (int64_t kh = 0; kh < g.kernel[0]; ++kh)
      for (int64_t kw = 0; kw < g.kernel[1]; ++kw) {
        const int64_t h = oh * g.stride[0] - g.padding[0] + kh * g.dilation[0];
        const int64_t w = ow * g.stride[1] - g.padding[1] + kw * g.dilation[1];
        if (h >= x[2] + g.padding[0] || w >= x[3] + g.padding[1]) continue;  // beyond the padding (ceil_mode)
        const bool inside = h >= 0 && h < x[2] && w >= 0 && w < x[3];
        f(static_cast<size_t>(i), inside ? (plane * x[2] + h) * x[3] + w : -1);
      }
  }
}

const PoolGeometry geometries[] = {
    {.kernel = {2, 2}, .stride = {2, 2}},
    {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}},
    {.kernel = {3, 2}, .stride = {1, 3}, .padding = {1, 0}},
    {.kernel = {1, 1}, .stride = {1, 1}},
    {.kernel = {2, 2}, .stride = {2, 2}, .padding = {1, 1}},
    {.kernel = {5, 7}, .stride = {5, 7}},
};

}  // namespace

TEST_CASE("max_pool2d: value and position") {
  for (const DType t : floating)
    for (PoolGeometry g : geometries)
      for (const int64_t dilation : {1, 2})
        for (const Layout layout : layouts)
          for (const bool ceil : {false, true}) {
            g.dilation = {g.kernel[0] > 3 ? 1 : dilation, g.kernel[1] > 3 ? 1 : dilation};
            const Dims shape{2, 3, 7, 9};
            const Array x = random(t, shape, layout);
            const Dims out = pooled(shape, g, ceil);
            std::vector<double> best(static_cast<size_t>(out.numel()), -inf), where(best.size(), 0.0);
            for_each_tap(shape, out, g, [&](size_t i, int64_t at) {
              if (at < 0 || get(x, at) <= best[i]) return;
              best[i] = get(x, at);
              where[i] = static_cast<double>(at % (7 * 9));
            });
            const Array y(t, out, layout), index(DType::i64, out, layout);
            cpu_accelerator().max_pool2d(y, index, x, g);
            check_close(y, best, 0);
            check_close(index, where, 0);
          }
}

TEST_CASE("max_pool2d: padding never wins, NaN wins, the first of equals wins") {
  const PoolGeometry padded{.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}};
  const Array low = array(DType::f32, {1, 1, 2, 2}, {-inf, -5, -7, -6}), y(DType::f32, {1, 1, 1, 1});
  const Array index(DType::i64, {1, 1, 1, 1});
  cpu_accelerator().max_pool2d(y, index, low, padded);
  CHECK(get(y, 0) == -5);
  CHECK(get(index, 0) == 1);

  const Array depths = array(DType::f32, {1, 1, 2, 2}, {-inf, -inf, -inf, -inf});
  for (const PoolGeometry& g : {geometries[0], padded}) {
    cpu_accelerator().max_pool2d(y, index, depths, g);
    CHECK(get(y, 0) == -inf);
    CHECK(get(index, 0) == 0);
  }
  for (const PoolGeometry& g : {geometries[0], padded})
    for (int at = 0; at < 4; ++at) {
      std::vector<double> v{1, 3, 3, 2};
      const Array plain = array(DType::f32, {1, 1, 2, 2}, v);
      cpu_accelerator().max_pool2d(y, index, plain, g);
      CHECK(get(index, 0) == 1);
      v[static_cast<size_t>(at)] = not_a_number;
      const Array spoilt = array(DType::f32, {1, 1, 2, 2}, v);
      cpu_accelerator().max_pool2d(y, index, spoilt, g);
      CHECK(std::isnan(get(y, 0)));
      CHECK(get(index, 0) == at);
    }
}

TEST_CASE("max_pool2d: its gradient goes to the maxima") {
  for (const DType t : floating)
    for (const PoolGeometry& g : geometries)
      for (const Layout layout : layouts) {
        const Dims shape{2, 3, 7, 9}, out = pooled(shape, g);
        const Array x = random(t, shape, layout), dy = random(t, out, layout), dx(t, shape, layout);
        const Array y(t, out), index(DType::i64, out, layout);
        cpu_accelerator().max_pool2d(y, index, x, g);
        std::vector<double> expected(static_cast<size_t>(shape.numel()), 0.0);
        for (int64_t i = 0; i < out.numel(); ++i)
          expected[static_cast<size_t>(i / (out[2] * out[3]) * 63) + static_cast<size_t>(get(index, i))] += get(dy, i);
        cpu_accelerator().max_pool2d_grad(dx, dy, index, g);
        check_close(dx, expected, 4 * epsilon(t));
      }
}

TEST_CASE("max_pool2d: 2 x 2 windows in planes of any width") {
  const PoolGeometry& g = geometries[0];
  for (const DType t : {DType::f32, DType::f64})
    for (int64_t width = 2; width <= 70; ++width) {
      const Dims shape{1, 2, 5, width}, out = pooled(shape, g);
      const Array x = random(t, shape, Layout::dense, 0, 4), dy = random(t, out), dx(t, shape);
      for (int64_t i = 0; i < shape.numel(); ++i)  // with equals, and a few that are not numbers
        set(x.view, i, i % 11 == 5 ? not_a_number : std::floor(get(x, i)));
      std::vector<double> best(static_cast<size_t>(out.numel()), -inf), where(best.size(), 0.0);
      for_each_tap(shape, out, g, [&](size_t i, int64_t at) {
        if (!(get(x, at) > best[i] || std::isnan(get(x, at)))) return;
        best[i] = get(x, at);
        where[i] = static_cast<double>(at % (5 * width));
      });
      std::vector<double> spread(static_cast<size_t>(shape.numel()), 0.0);
      for (size_t i = 0; i < best.size(); ++i)
        spread[i / (best.size() / 2) * static_cast<size_t>(5 * width) + static_cast<size_t>(where[i])] =
            get(dy, static_cast<int64_t>(i));
      const Array y(t, out), index(DType::i64, out);
      cpu_accelerator().max_pool2d(y, index, x, g);
      cpu_accelerator().max_pool2d_grad(dx, dy, index, g);
      check_close(y, best, 0);
      check_close(index, where, 0);
      check_close(dx, spread, 0);
    }
}

TEST_CASE("avg_pool2d and its gradient") {
  for (const DType t : floating)
    for (PoolGeometry g : geometries)
      for (const Layout layout : layouts)
        for (const bool ceil : {false, true})
          for (const bool count_include_pad : {true, false}) {
            g.count_include_pad = count_include_pad;
            const Dims shape{2, 3, 7, 9}, out = pooled(shape, g, ceil);
            const Array x = random(t, shape, layout), dy = random(t, out, layout);
            const auto n = static_cast<size_t>(out.numel());
            std::vector<double> sum(n, 0.0), taps(n, 0.0), spread(static_cast<size_t>(shape.numel()), 0.0);
            for_each_tap(shape, out, g, [&](size_t i, int64_t at) {
              if (at >= 0) sum[i] += get(x, at);
              taps[i] += at >= 0 || count_include_pad;
            });
            for_each_tap(shape, out, g, [&](size_t i, int64_t at) {
              if (at >= 0) spread[static_cast<size_t>(at)] += get(dy, static_cast<int64_t>(i)) / taps[i];
            });
            for (size_t i = 0; i < n; ++i) sum[i] /= taps[i];
            const Array y(t, out, layout), dx(t, shape, layout);
            cpu_accelerator().avg_pool2d(y, x, g);
            cpu_accelerator().avg_pool2d_grad(dx, dy, g);
            check_close(y, sum, 4 * epsilon(t));
            check_close(dx, spread, 4 * epsilon(t));
          }
}

TEST_CASE("pooling: no images, and many planes on several threads") {
  const PoolGeometry& g = geometries[0];
  const Array none(DType::f32, {0, 3, 4, 4}), y(DType::f32, {0, 3, 2, 2}), index(DType::i64, {0, 3, 2, 2});
  cpu_accelerator().max_pool2d(y, index, none, g);
  cpu_accelerator().avg_pool2d(y, none, g);
  cpu_accelerator().max_pool2d_grad(none, y, index, g);
  cpu_accelerator().avg_pool2d_grad(none, y, g);

  const Array x = random(DType::f32, {8, 16, 28, 28});
  const Array first(DType::f32, {8, 16, 14, 14}), second(DType::f32, {8, 16, 14, 14}), at(DType::i64, {8, 16, 14, 14});
  {
    const Threads scope(1);
    cpu_accelerator().max_pool2d(first, at, x, g);
  }
  const Threads scope(3);
  cpu_accelerator().max_pool2d(second, at, x, g);
  CHECK(values(first) == values(second));
}

TEST_CASE("pooling: refuses integers") {
  const Array x(DType::i64, {1, 1, 2, 2}), y(DType::i64, {1, 1, 1, 1});
  CHECK_THROWS_WITH_AS(cpu_accelerator().max_pool2d(y, y, x, geometries[0]),
                       "max_pool2d: expects a floating dtype, got i64", Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().max_pool2d_grad(x, y, y, geometries[0]),
                       "max_pool2d: expects a floating dtype, got i64", Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().avg_pool2d(y, x, geometries[0]),
                       "avg_pool2d: expects a floating dtype, got i64", Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().avg_pool2d_grad(x, y, geometries[0]),
                       "avg_pool2d: expects a floating dtype, got i64", Error);
}
