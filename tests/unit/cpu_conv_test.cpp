// SPDX-License-Identifier: Apache-2.0
#include "conv_case.h"

using namespace kernel_test;

namespace {

const ConvCase cases[] = {
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

}  // namespace

TEST_CASE("conv2d: forward and both gradients against loops") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const ConvCase& c : cases)
      for (const DType t : floating) check_conv(c, t, Layout::dense);
  }
}

TEST_CASE("conv2d: strided arguments and results") {
  for (const ConvCase& c : cases)
    for (const Layout layout : {Layout::transposed, Layout::sliced}) check_conv(c, DType::f32, layout);
  check_conv(cases[0], DType::bf16, Layout::transposed);
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
  const ConvCase c{"", {13, 8, 14, 14}, {16, 8, 3, 3}, {.padding = {1, 1}}};
  for (const DType t : {DType::f32, DType::bf16}) {
    const Array x = random(t, c.x), dy = random(t, c.y()), first(DType::f32, c.w);
    cpu_accelerator().conv2d_grad_weight(first, dy, x, c.g);
    for (int i = 0; i < 5; ++i) {
      const Array again(DType::f32, c.w);
      cpu_accelerator().conv2d_grad_weight(again, dy, x, c.g);
      CHECK(values(again) == values(first));
    }
  }
}

TEST_CASE("conv2d: refuses integers") {
  const Array x(DType::i32, {1, 1, 3, 3}), w(DType::i32, {1, 1, 3, 3}), y(DType::i32, {1, 1, 1, 1});
  const char* const text = "conv2d: expects a floating dtype, got i32";
  CHECK_THROWS_WITH_AS(cpu_accelerator().conv2d(y, x, w, without(), {}), text, Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().conv2d_grad_input(x, y, w, {}), text, Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().conv2d_grad_weight(w, y, x, {}), text, Error);
}
