// SPDX-License-Identifier: Apache-2.0
// Convolution at sizes around the vectors, tiles and blocks of the direct kernels.
#include "conv_case.h"

using namespace kernel_test;

namespace {

std::string named(const Dims& x, const Dims& w, const ConvGeometry& g) {
  return "x " + to_string(x) + ", w " + to_string(w) + ", stride " + std::to_string(g.stride[0]) + " " +
         std::to_string(g.stride[1]) + ", padding " + std::to_string(g.padding[0]) + " " +
         std::to_string(g.padding[1]) + ", groups " + std::to_string(g.groups);
}

constexpr DType dtypes[] = {DType::f32, DType::bf16};

// In f32, 3 x 3 taps of many channels are for transformed tiles (cpu_winograd_test.cpp): one column less is not.
Dims direct(DType t, const Dims& w, const ConvGeometry& g) {
  constexpr std::array<int64_t, 2> one{1, 1};
  const bool transformed = t == DType::f32 && w[2] == 3 && w[3] == 3 && w[0] >= 16 && w[1] >= 16;
  return transformed && g.stride == one && g.groups == 1 ? Dims{w[0], w[1], 3, 2} : w;
}

void check(const Dims& x, const Dims& w, const ConvGeometry& g, Layout layout = Layout::dense) {
  for (const DType t : dtypes) check_conv({named(x, w, g), x, direct(t, w, g), g}, t, layout);
}

}  // namespace

TEST_CASE("conv2d: any number of output and input channels") {
  for (int64_t channels = 1; channels <= 33; ++channels) {
    check({2, 3, 5, 6}, {channels, 3, 3, 3}, {.padding = {1, 1}});
    check({2, channels, 5, 6}, {9, channels, 3, 3}, {.padding = {1, 1}});
  }
  for (const int64_t channels : {47, 48, 63, 64, 65}) check({1, channels, 4, 4}, {channels, channels, 3, 3}, {});
}

TEST_CASE("conv2d: planes of any width") {
  for (int64_t width = 1; width <= 31; ++width) {
    check({1, 2, 3, width}, {17, 2, 3, 3}, {.padding = {1, 1}});
    check({1, 2, 5, width + 2}, {33, 2, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}});
    check({2, 8, 1, width + 4}, {8, 8, 1, 5}, {});
  }
}

TEST_CASE("conv2d: kernels, strides, paddings, dilations and groups") {
  for (const auto& [h, w] : {std::pair{1, 1}, {1, 3}, {3, 1}, {2, 2}, {3, 3}, {4, 3}, {5, 5}, {4, 6}, {7, 7}, {2, 9}})
    for (const int64_t stride : {1, 2, 3})
      for (const int64_t padding : {0, 1, 2, 4})
        for (const int64_t groups : {1, 2}) {
          const Dims kernel{16 * groups, 8, h, w};
          check({2, 8 * groups, 9, 11}, kernel,
                {.stride = {stride, stride}, .padding = {padding, padding}, .groups = groups});
          if (h <= 4 && w <= 4)
            check({1, 8 * groups, 11, 10}, kernel,
                  {.stride = {stride, 1}, .padding = {padding, 1}, .dilation = {2, 3}, .groups = groups});
        }
}

TEST_CASE("conv2d: images of one channel") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const int64_t width : {4, 8, 15, 16, 17, 18, 28, 31, 33, 50})
      for (const int64_t outputs : {1, 2, 3, 4, 11}) {
        check({3, 1, 5, width}, {outputs, 1, 3, 3}, {.padding = {1, 1}});
        check({2, 1, 6, width}, {outputs, 1, 3, 3}, {.padding = {0, 2}});
      }
    check({2, 1, 300, 40}, {5, 1, 3, 3}, {});
  }
}

TEST_CASE("conv2d: small planes of many channels, which images share tiles") {
  for (const int64_t images : {1, 3, 5})
    for (const auto& [h, w] : {std::pair{1, 1}, {2, 3}, {4, 4}, {3, 7}, {5, 8}, {2, 15}, {9, 9}}) {
      check({images, 40, h, w}, {41, 40, 3, 3}, {.padding = {1, 1}});
      if (h > 2 && w > 2) check({images, 36, h, w}, {40, 36, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}});
    }
  check({3, 200, 3, 4}, {210, 200, 1, 1}, {});
}

// These are products in which pixels are lanes; so are gradients of strided ones, whose sums stand among zeros.
TEST_CASE("conv2d: kernels of one element, large planes and strides") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const auto& [h, w] : {std::pair{16, 32}, {23, 23}, {24, 22}, {1, 521}, {18, 36}})
      for (const int64_t channels : {16, 17, 43}) check({2, channels, h, w}, {59 - channels, channels, 1, 1}, {});
    for (const auto& [h, w] : {std::pair{7, 7}, {23, 24}, {24, 23}, {15, 33}, {1, 130}, {131, 1}})
      for (const auto& [down, right] : {std::pair{2, 2}, {1, 2}, {2, 1}, {3, 3}, {4, 2}})
        check({5, 18, h, w}, {31, 18, 1, 1}, {.stride = {down, right}});
    check({9, 33, 5, 5}, {47, 33, 1, 1}, {});
    check({1, 300, 32, 16}, {320, 300, 1, 1}, {});
    check({1, 520, 23, 23}, {260, 520, 1, 1}, {});
  }
}

TEST_CASE("conv2d: strided arguments and results at odd numbers of channels and pixels") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const Layout layout : {Layout::transposed, Layout::sliced}) {
      check({2, 17, 9, 11}, {33, 17, 3, 3}, {.padding = {1, 1}}, layout);
      check({3, 19, 11, 9}, {35, 19, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}, layout);
      check({2, 37, 7, 5}, {41, 37, 1, 1}, {}, layout);
      check({2, 18, 13, 10}, {34, 9, 5, 3}, {.padding = {2, 1}, .groups = 2}, layout);
      check({5, 40, 4, 4}, {41, 40, 3, 3}, {.padding = {1, 1}}, layout);
    }
  }
}

TEST_CASE("conv2d: any number of threads, few images and many") {
  for (const int threads : {1, 2, 3, 4}) {
    const Threads scope(threads);
    for (const int64_t images : {1, 2, 5}) {
      check({images, 16, 14, 14}, {40, 16, 3, 3}, {.padding = {1, 1}});
      check({images, 32, 20, 21}, {16, 32, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}});
      check({images, 1, 28, 28}, {32, 1, 3, 3}, {.padding = {1, 1}});
      check({images, 24, 7, 7}, {96, 24, 3, 3}, {.padding = {1, 1}});
    }
    check({19, 40, 9, 8}, {72, 40, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}});
    check({70, 8, 4, 4}, {16, 8, 3, 3}, {.padding = {1, 1}});
    check({70, 8, 6, 6}, {40, 8, 3, 3}, {});
  }
}

TEST_CASE("conv2d: forward and input gradient have the same bits on any number of threads") {
  const ConvCase cases[] = {{"plain", {3, 15, 13, 15}, {40, 15, 3, 3}, {.padding = {1, 1}}},
                            {"strided", {7, 40, 13, 15}, {40, 40, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
                            {"one element", {2, 40, 23, 25}, {48, 40, 1, 1}, {}},
                            {"one element, strided", {7, 40, 13, 15}, {48, 40, 1, 1}, {.stride = {2, 2}}},
                            {"small", {7, 40, 4, 4}, {40, 40, 3, 2}, {.padding = {1, 1}}}};
  for (const DType t : dtypes)
    for (const ConvCase& c : cases) {
      CAPTURE(c.what);
      const Array x = random(t, c.x), w = random(t, c.w), dy = random(t, c.y());
      std::vector<double> first_y, first_dx;
      for (const int threads : {1, 2, 3, 4}) {
        const Threads scope(threads);
        const Array y(t, c.y()), dx(t, c.x);
        cpu_accelerator().conv2d(y, x, w, without(), c.g);
        cpu_accelerator().conv2d_grad_input(dx, dy, w, c.g);
        if (threads == 1) first_y = values(y), first_dx = values(dx);
        CHECK(values(y) == first_y);
        CHECK(values(dx) == first_dx);
      }
    }
}

TEST_CASE("conv2d: what is not a number stays in the outputs that see it") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const DType t : dtypes)
    for (const int64_t channels : {7, 8})
      for (const double value : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
        CAPTURE(to_string(t));
        CAPTURE(channels);
        CAPTURE(value);
        const ConvCase c{"", {1, channels, 6, 6}, {16, channels, 3, 3}, {.padding = {1, 1}}};
        const Array x = random(t, c.x), w = random(t, c.w), dy = random(t, c.y());
        const Array y(t, c.y()), dx(t, c.x), dw(t, c.w);
        Accelerator& cpu = cpu_accelerator();
        const auto near = [](int64_t i) { return i % 36 / 6 <= 1 && i % 6 <= 1; };
        const auto finite = [](const Array& a, int64_t i) { return std::isfinite(get(a, i)); };
        set(x.view, (channels - 1) * 36, value);  // the upper left pixel of the last channel
        cpu.conv2d(y, x, w, without(), c.g);
        for (int64_t i = 0; i < y.view.numel(); ++i) CHECK(finite(y, i) != near(i));
        cpu.conv2d_grad_weight(dw, dy, x, c.g);  // the taps that do not reach beyond that pixel
        for (int64_t i = 0; i < dw.view.numel(); ++i) {
          const bool meets = i / 9 % channels == channels - 1 && i % 9 / 3 <= 1 && i % 3 <= 1;
          CHECK(finite(dw, i) != meets);
        }
        set(dy.view, 15 * 36, value);
        cpu.conv2d_grad_input(dx, dy, w, c.g);
        for (int64_t i = 0; i < dx.view.numel(); ++i) CHECK(finite(dx, i) != near(i));
      }
}

TEST_CASE("conv2d: bf16 is summed in f32 and rounded once") {
  // 1 + 2^-8 terms: in bf16 each of the small ones would be lost.
  const ConvCase c{"", {1, 33, 8, 8}, {32, 33, 3, 3}, {}};
  const Array x = random(DType::bf16, c.x, Layout::dense, 1, 1), w = random(DType::bf16, c.w, Layout::dense, 1, 1);
  for (int64_t i = 0; i < w.view.numel(); ++i) set(w.view, i, i % 297 == 0 ? 1 : 0x1p-8);
  const Array y(DType::bf16, c.y());
  cpu_accelerator().conv2d(y, x, w, without(), c.g);
  for (int64_t i = 0; i < y.view.numel(); ++i) CHECK(get(y, i) == 2.15625);  // 1 + 296 / 256
}
