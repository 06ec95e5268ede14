// SPDX-License-Identifier: Apache-2.0
// Convolutions with transformed tiles (accelerators/cpu/winograd.h): 3 x 3 taps of many channels, enough pixels.
#include <loom/accelerators/cpu.h>

#include "conv_case.h"

using namespace kernel_test;

namespace {

// Terms of transformed tiles are larger than what they sum to: errors are up to 13 * 2^-24 of the products' magnitudes,
// five times those of plain sums.
constexpr double transformed = 4;

void check(const Dims& x, int64_t outputs, int64_t padding_h, int64_t padding_w) {
  const ConvGeometry g{.padding = {padding_h, padding_w}};
  check_conv({"x " + to_string(x) + ", outputs " + std::to_string(outputs) + ", padding " + std::to_string(padding_h) +
                  " " + std::to_string(padding_w),
              x,
              {outputs, x[1], 3, 3},
              g,
              transformed},
             DType::f32, Layout::dense);
}

const ConvCase image{"", {2, 37, 9, 11}, {35, 37, 3, 3}, {.padding = {1, 1}}, transformed};

// `count` of a dimension from `first` on.
View part(const Array& x, int dim, int64_t first, int64_t count) {
  View out = x.view;
  out.data = out.as<float>() + first * out.strides[dim];
  out.shape[dim] = count;
  return out;
}

double distance(const View& a, const View& b) {
  double most = 0;
  for (int64_t i = 0; i < a.numel(); ++i) most = std::max(most, std::abs(get(a, i) - get(b, i)));
  return most;
}

// Largest difference of elements that `counts`.
template <class F>
double difference(const Array& a, const Array& b, const F& counts) {
  double most = 0;
  for (int64_t i = 0; i < a.view.numel(); ++i)
    if (counts(i)) most = std::max(most, std::abs(get(a, i) - get(b, i)));
  return most;
}

}  // namespace

TEST_CASE("conv2d, 3 x 3: planes and paddings of any size, blocks and vectors that are not full") {
  for (const auto& [h, w] : {std::pair{1, 16}, {16, 1}, {2, 8}, {3, 7}, {4, 4}, {5, 6}, {7, 7}, {8, 9}, {6, 11}})
    for (const int64_t channels : {19, 32, 37})
      for (const int64_t padding : {0, 1, 2}) {
        const int64_t least = 3 - 2 * padding;
        if (h < least || w < least) continue;
        const int64_t outputs = (h + 2 * padding - 2) * (w + 2 * padding - 2);
        check({128 / outputs + 1, channels, h, w}, 65 - channels, padding, padding);
      }
  check({9, 33, 6, 7}, 70, 0, 2);
  check({9, 70, 6, 7}, 33, 2, 1);
  check({3, 270, 7, 8}, 150, 1, 1);
  check({1, 140, 16, 13}, 32, 0, 1);
}

TEST_CASE("conv2d, 3 x 3: few tiles and many, images that are cut, on any number of threads") {
  for (const int threads : {1, 2, 3}) {
    const Threads scope(threads);
    check({9, 40, 4, 4}, 100, 1, 1);
    check({1, 40, 61, 40}, 36, 1, 1);
    check({45, 34, 17, 15}, 32, 1, 1);
    check({2, 32, 5, 1100}, 33, 1, 1);
    check({9, 32, 2, 300}, 33, 1, 1);
  }
}

TEST_CASE("conv2d, 3 x 3: strided arguments and results") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const ConvCase& c : {image, ConvCase{"several sets", {3, 37, 17, 15}, {40, 37, 3, 3}, {}, transformed}})
      for (const Layout layout : {Layout::transposed, Layout::sliced}) check_conv(c, DType::f32, layout);
  }
}

TEST_CASE("conv2d, 3 x 3: the same bits on any number of threads, and whatever and how many images are beside") {
  const ConvCase cases[] = {image,
                            {"", {44, 34, 17, 15}, {40, 34, 3, 3}, {.padding = {1, 1}}},
                            {"", {5, 34, 10, 10}, {40, 34, 3, 3}, {.padding = {1, 1}}},
                            {"", {3, 270, 8, 8}, {70, 270, 3, 3}, {.padding = {1, 1}}}};
  for (const ConvCase& c : cases) {
    const Array x = random(DType::f32, c.x), w = random(DType::f32, c.w), dy = random(DType::f32, c.y());
    std::vector<double> first_y, first_dx, first_dw;
    for (const int threads : {1, 2, 3, 4}) {
      const Threads scope(threads);
      const Array y(DType::f32, c.y()), dx(DType::f32, c.x), dw(DType::f32, c.w);
      Accelerator& cpu = cpu_accelerator();
      cpu.conv2d(y, x, w, without(), c.g);
      cpu.conv2d_grad_input(dx, dy, w, c.g);
      cpu.conv2d_grad_weight(dw, dy, x, c.g);
      if (threads == 1) first_y = values(y), first_dx = values(dx), first_dw = values(dw);
      CHECK(values(y) == first_y);
      CHECK(values(dx) == first_dx);
      if (largest_winograd() != 0) CHECK(values(dw) == first_dw);  // else each thread sums its part
    }
    for (const int64_t images : {1, 2}) {
      ConvCase fewer = c;
      fewer.x[0] = images;
      const Array y(DType::f32, fewer.y());
      cpu_accelerator().conv2d(y, part(x, 0, 0, images), w, without(), c.g);
      for (int64_t i = 0; i < y.view.numel(); ++i) CHECK(get(y, i) == first_y[static_cast<size_t>(i)]);
    }
  }
}

TEST_CASE("conv2d, 3 x 3: what is not a number stays in the outputs that see it") {
  const double infinity = std::numeric_limits<double>::infinity();
  const ConvCase& c = image;
  const int64_t plane = 9 * 11, pixel = 3 * 11 + 4;
  for (const double value : {std::numeric_limits<double>::quiet_NaN(), infinity, -infinity}) {
    CAPTURE(value);
    const Array x = random(DType::f32, c.x), w = random(DType::f32, c.w), dy = random(DType::f32, c.y());
    const Array y(DType::f32, c.y()), dx(DType::f32, c.x), dw(DType::f32, c.w);
    set(x.view, 7 * plane + pixel, value);
    set(dy.view, 5 * plane + pixel, value);
    Accelerator& cpu = cpu_accelerator();
    cpu.conv2d(y, x, w, without(), c.g);
    cpu.conv2d_grad_input(dx, dy, w, c.g);
    const auto sees = [&](int64_t i, int64_t channels) {
      return i / (channels * plane) == 0 && std::abs(i % plane / 11 - 3) <= 1 && std::abs(i % 11 - 4) <= 1;
    };
    for (int64_t i = 0; i < y.view.numel(); ++i) {
      CHECK(std::isfinite(get(y, i)) != sees(i, 35));
      CHECK((std::isinf(get(y, i)) == (sees(i, 35) && std::isinf(value))));
    }
    for (int64_t i = 0; i < dx.view.numel(); ++i) CHECK(std::isfinite(get(dx, i)) != sees(i, 37));
    set(dy.view, 5 * plane + pixel, 1);
    cpu.conv2d_grad_weight(dw, dy, x, c.g);
    for (int64_t i = 0; i < dw.view.numel(); ++i) CHECK(std::isfinite(get(dw, i)) != (i / 9 % 37 == 7));
  }
}

TEST_CASE("conv2d, 3 x 3: a large number costs its tile's outputs digits, of 4 x 4 also those that do not see it") {
  const ConvCase& c = image;
  const Array x = random(DType::f32, c.x), w = random(DType::f32, c.w), y(DType::f32, c.y()), large(DType::f32, c.y());
  Accelerator& cpu = cpu_accelerator();
  cpu.conv2d(y, x, w, without(), c.g);
  for (int64_t column : {4, 5})
    for (const double value : {1e4, 1e6, 1e30}) {
      const double before = get(x, 3 * 11 + column);
      set(x.view, 3 * 11 + column, value);
      cpu.conv2d(large, x, w, without(), c.g);
      set(x.view, 3 * 11 + column, before);
      const auto sees = [&](int64_t i) {
        return i / (35 * 99) == 0 && std::abs(i % 99 / 11 - 3) <= 1 && std::abs(i % 11 - column) <= 1;
      };
      const auto in_tile = [](int64_t output, int64_t pixel_of_x) {  // of 4 outputs and the pixels around them
        const int64_t from_first = pixel_of_x - (output / 4 * 4 - 1);
        return from_first >= 0 && from_first < 6;
      };
      const auto beside = [&](int64_t i) {
        return largest_winograd() == 4 && i / (35 * 99) == 0 && in_tile(i % 99 / 11, 3) && in_tile(i % 11, column);
      };
      CHECK(difference(large, y, sees) > value / 100);
      CHECK(difference(large, y, [&](int64_t i) { return !sees(i) && beside(i); }) <= value * 64 * 0x1p-24);
      CHECK(difference(large, y, [&](int64_t i) { return !sees(i) && !beside(i); }) == 0);
    }
}

TEST_CASE("conv2d, 3 x 3: more weights than are transformed at a time, and sums than are kept: those of fewer") {
  // 36 * 640 * 500 elements for tiles of 4 x 4 outputs, of which 10 Mi are kept.
  const ConvCase c{"", {14, 640, 8, 8}, {500, 640, 3, 3}, {.padding = {1, 1}}};
  const Array x = random(DType::f32, c.x), w = random(DType::f32, c.w), dy = random(DType::f32, c.y());
  const Array y(DType::f32, c.y()), dx(DType::f32, c.x), dw(DType::f32, c.w);
  Accelerator& cpu = cpu_accelerator();
  cpu.conv2d(y, x, w, without(), c.g);
  cpu.conv2d_grad_input(dx, dy, w, c.g);
  cpu.conv2d_grad_weight(dw, dy, x, c.g);
  for (const int64_t from : {0, 256, 440}) {  // whole blocks of vectors on any instruction set
    const int64_t count = 60;
    const Array some_y(DType::f32, {14, count, 8, 8}), some_dx(DType::f32, {14, count, 8, 8}),
        some_dw(DType::f32, {count, 640, 3, 3});
    cpu.conv2d(some_y, x, part(w, 0, from, count), without(), c.g);
    cpu.conv2d_grad_input(some_dx, dy, part(w, 1, from, count), c.g);
    cpu.conv2d_grad_weight(some_dw, part(dy, 1, from, count), x, c.g);
    CHECK(distance(part(y, 1, from, count), some_y) == 0);
    CHECK(distance(part(dx, 1, from, count), some_dx) == 0);
    CHECK(distance(part(dw, 0, from, count), some_dw) < 2e-4);  // in other sets of tiles
  }
}

TEST_CASE("conv2d, 3 x 3: the gradient of the weight in several sets of tiles and several parts of the channels") {
  const ConvCase c{"", {45, 140, 17, 15}, {33, 140, 3, 3}, {.padding = {1, 1}}};
  const Array x = random(DType::f32, c.x), dy = random(DType::f32, c.y()), dw(DType::f32, c.w);
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    cpu_accelerator().conv2d_grad_weight(dw, dy, x, c.g);
    for (const int64_t from : {0, 70, 130}) {
      const Array some(DType::f32, {33, 10, 3, 3});
      cpu_accelerator().conv2d_grad_weight(some, dy, part(x, 1, from, 10), c.g);  // as plain sums: fewer channels
      CHECK(distance(part(dw, 1, from, 10), some) < 2e-3);  // sums of 10,000 products are about 30
    }
  }
}

TEST_CASE("conv2d, 3 x 3: sums beyond f32's range are infinite, and others stay what they are") {
  const ConvCase& c = image;
  const Array x = random(DType::f32, c.x, Layout::dense, 1, 1), w = random(DType::f32, c.w, Layout::dense, 1, 1);
  for (int64_t i = 0; i < x.view.numel(); ++i) set(x.view, i, 3e38);
  for (int64_t i = 0; i < w.view.numel(); ++i) set(w.view, i, i < 333 ? 1e-3 : 1);  // the first output is in range
  const Array y(DType::f32, c.y());
  cpu_accelerator().conv2d(y, x, w, without(), c.g);
  CHECK(get(y, 12) == doctest::Approx(3e38 * 0.333).epsilon(1e-5));
  CHECK(get(y, 99 + 12) == std::numeric_limits<double>::infinity());
}
