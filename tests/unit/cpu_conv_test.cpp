// SPDX-License-Identifier: Apache-2.0
#include "kernel_test.h"

using namespace kernel_test;

namespace {

struct Case {
  const char* what;
  Dims x, w;  // [N, C, H, W], [O, C / groups, KH, KW]
  ConvGeometry g;

  Dims y() const {
    const auto out = [&](int side) {
      const auto s = static_cast<size_t>(side);
      return (x[2 + side] + 2 * g.padding[s] - g.dilation[s] * (w[2 + side] - 1) - 1) / g.stride[s] + 1;
    };
    return {x[0], w[0], out(0), out(1)};
  }
};

const Case cases[] = {
    {"same size", {2, 3, 7, 5}, {4, 3, 3, 3}, {.padding = {1, 1}}},
    {"one channel", {3, 1, 9, 9}, {5, 1, 3, 3}, {.padding = {1, 1}}},
    {"uneven everything",
     {2, 4, 9, 8},
     {6, 2, 3, 2},
     {.stride = {2, 1}, .padding = {1, 0}, .dilation = {1, 2}, .groups = 2}},
    {"1x1", {3, 5, 4, 6}, {7, 5, 1, 1}, {}},
    {"1x1, groups", {2, 6, 4, 3}, {4, 3, 1, 1}, {.groups = 2}},
    {"1x1, stride 2", {2, 3, 5, 6}, {4, 3, 1, 1}, {.stride = {2, 2}}},
    {"1x1, padded", {2, 3, 3, 3}, {4, 3, 1, 1}, {.padding = {1, 1}}},
    {"depthwise", {2, 6, 8, 7}, {6, 1, 3, 3}, {.padding = {1, 1}, .groups = 6}},
    {"depthwise, two outputs a channel, stride and dilation",
     {2, 3, 11, 9},
     {6, 1, 3, 2},
     {.stride = {2, 2}, .padding = {2, 1}, .dilation = {2, 1}, .groups = 3}},
    {"one spatial dim", {2, 2, 1, 11}, {3, 2, 1, 5}, {.stride = {1, 2}, .padding = {0, 2}}},
    {"same width, another height", {2, 2, 9, 6}, {3, 2, 4, 3}, {.padding = {0, 1}}},
    {"kernel above the input", {1, 2, 3, 3}, {2, 2, 5, 5}, {.padding = {2, 2}}},
    {"padding above the kernel", {1, 2, 4, 4}, {2, 2, 2, 2}, {.padding = {3, 3}}},
    {"dilated, same size", {1, 2, 9, 9}, {3, 2, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
    {"stride above the kernel", {2, 2, 10, 10}, {3, 2, 2, 2}, {.stride = {3, 4}}},
    {"kernel as large as the input", {3, 4, 5, 6}, {7, 4, 5, 6}, {}},
    {"several tiles of rows", {1, 16, 50, 40}, {3, 16, 3, 3}, {.padding = {1, 1}}},
    {"several tiles, stride 2", {2, 32, 61, 45}, {2, 32, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
};

// Calls f(y index, x index, w index) for every product of the convolution.
template <class F>
void for_each_product(const Case& c, const F& f) {
  const Dims y = c.y();
  const int64_t group_outputs = c.w[0] / c.g.groups;
  for (int64_t n = 0; n < y[0]; ++n)
    for (int64_t o = 0; o < y[1]; ++o)
      for (int64_t oh = 0; oh < y[2]; ++oh)
        for (int64_t ow = 0; ow < y[3]; ++ow)
          for (int64_t ci = 0; ci < c.w[1]; ++ci)
            for (int64_t kh = 0; kh < c.w[2]; ++kh)
              for (int64_t kw = 0; kw < c.w[3]; ++kw) {
                const int64_t h = oh * c.g.stride[0] - c.g.padding[0] + kh * c.g.dilation[0];
                const int64_t w = ow * c.g.stride[1] - c.g.padding[1] + kw * c.g.dilation[1];
                if (h < 0 || h >= c.x[2] || w < 0 || w >= c.x[3]) continue;
                const int64_t channel = o / group_outputs * c.w[1] + ci;
                f(static_cast<size_t>(((n * y[1] + o) * y[2] + oh) * y[3] + ow),
                  static_cast<size_t>(((n * c.x[1] + channel) * c.x[2] + h) * c.x[3] + w),
                  static_cast<size_t>(((o * c.w[1] + ci) * c.w[2] + kh) * c.w[3] + kw));
              }
}

void check_case(const Case& c, DType t, Layout layout) {
  CAPTURE(std::string(c.what));
  CAPTURE(to_string(t));
  CAPTURE(static_cast<int>(layout));
  const Dims shape = c.y();
  const Array x = random(t, c.x, layout), w = random(t, c.w, layout), bias = random(t, {c.w[0]}, layout);
  const Array dy = random(t, shape, layout);
  const Array y(t, shape, layout), plain(t, shape), dx(t, c.x, layout), dw(t, c.w, layout);
  const std::vector<double> xs = values(x), ws = values(w), gs = values(dy);
  std::vector<double> y_plain(gs.size(), 0.0), dx_expected(xs.size(), 0.0), dw_expected(ws.size(), 0.0);
  for_each_product(c, [&](size_t out, size_t in, size_t weight) {
    y_plain[out] += xs[in] * ws[weight];
    dx_expected[in] += gs[out] * ws[weight];
    dw_expected[weight] += gs[out] * xs[in];
  });
  std::vector<double> y_expected = y_plain;
  for (size_t i = 0; i < y_expected.size(); ++i)
    y_expected[i] += get(bias, static_cast<int64_t>(i) / (shape[2] * shape[3]) % shape[1]);

  Accelerator& cpu = cpu_accelerator();
  cpu.conv2d(y, x, w, bias, c.g);
  cpu.conv2d(plain, x, w, without(), c.g);
  cpu.conv2d_grad_input(dx, dy, w, c.g);
  cpu.conv2d_grad_weight(dw, dy, x, c.g);
  const double eps = epsilon(t), taps = static_cast<double>(c.w[1] * c.w[2] * c.w[3]);
  const double pixels = static_cast<double>(shape[0] * shape[2] * shape[3]);
  check_close(y, y_expected, eps * (4 + 4 * std::sqrt(taps)));
  check_close(plain, y_plain, eps * (4 + 4 * std::sqrt(taps)));
  check_close(dx, dx_expected, eps * (4 + 4 * std::sqrt(static_cast<double>(c.w[0] * c.w[2] * c.w[3]))));
  check_close(dw, dw_expected, eps * (4 + 4 * std::sqrt(pixels)));
}

}  // namespace

TEST_CASE("conv2d: forward and both gradients against loops") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const Case& c : cases)
      for (const DType t : floating) check_case(c, t, Layout::dense);
  }
}

TEST_CASE("conv2d: strided arguments and results") {
  for (const Case& c : cases)
    for (const Layout layout : {Layout::transposed, Layout::sliced}) check_case(c, DType::f32, layout);
  check_case(cases[0], DType::bf16, Layout::transposed);
}

TEST_CASE("conv2d: an input repeated by stride 0") {
  const Array one = random(DType::f32, {1, 3, 6, 6}), w = random(DType::f32, {2, 3, 3, 3});
  View x = one.view;
  x.shape[0] = 4;
  x.strides[0] = 0;
  const Array y(DType::f32, {4, 2, 4, 4}), single(DType::f32, {1, 2, 4, 4});
  cpu_accelerator().conv2d(y, x, w, without(), {});
  cpu_accelerator().conv2d(single, one, w, without(), {});
  for (int64_t i = 0; i < y.view.numel(); ++i) CHECK(get(y, i) == doctest::Approx(get(single, i % 32)));
}

TEST_CASE("conv2d: no images give an empty result and a zero weight gradient") {
  for (const int64_t groups : {1, 2}) {
    const ConvGeometry g{.groups = groups};
    const Array x(DType::f32, {0, 2, 5, 5}), w = random(DType::f32, {4, 2 / groups, 3, 3}), y(DType::f32, {0, 4, 3, 3});
    const Array dx(DType::f32, {0, 2, 5, 5}), dw(DType::f32, w.view.shape);
    cpu_accelerator().conv2d(y, x, w, without(), g);
    cpu_accelerator().conv2d_grad_input(dx, y, w, g);
    cpu_accelerator().conv2d_grad_weight(dw, y, x, g);
    check_close(dw, std::vector<double>(static_cast<size_t>(w.view.numel()), 0.0), 0);
  }
}

TEST_CASE("conv2d: the weight gradient has the same bits every time") {
  const Threads scope(3);
  const Case c{"", {13, 8, 14, 14}, {16, 8, 3, 3}, {.padding = {1, 1}}};
  const Array x = random(DType::f32, c.x), dy = random(DType::f32, c.y()), first(DType::f32, c.w);
  cpu_accelerator().conv2d_grad_weight(first, dy, x, c.g);
  for (int i = 0; i < 5; ++i) {
    const Array again(DType::f32, c.w);
    cpu_accelerator().conv2d_grad_weight(again, dy, x, c.g);
    CHECK(values(again) == values(first));
  }
}

TEST_CASE("conv2d: refuses integers") {
  const Array x(DType::i32, {1, 1, 3, 3}), w(DType::i32, {1, 1, 3, 3}), y(DType::i32, {1, 1, 1, 1});
  const char* const text = "conv2d: expects a floating dtype, got i32";
  CHECK_THROWS_WITH_AS(cpu_accelerator().conv2d(y, x, w, without(), {}), text, Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().conv2d_grad_input(x, y, w, {}), text, Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().conv2d_grad_weight(w, y, x, {}), text, Error);
}
