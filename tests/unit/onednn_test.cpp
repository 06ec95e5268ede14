// SPDX-License-Identifier: Apache-2.0
// Products and convolutions that oneDNN takes, in a build that has it: traces say that it did.
#include <algorithm>
#include <filesystem>
#include <iterator>

#include <loom/accelerators/onednn.h>
#include <loom/accelerators/profiler.h>

#include "../trace_file.h"
#include "conv_case.h"
#include "gemm_case.h"
#include "temporary_folder.h"

using namespace kernel_test;

namespace {

bool missing() {
  if (!onednn::in_use()) MESSAGE("skipped: " << onednn::description());
  return !onednn::in_use();
}

// How many of f's products and convolutions went there.
template <class F>
int64_t taken(const F& f) {
  Profiler profiler;
  f();
  const TemporaryFolder folder;
  profiler.export_chrome_trace(folder / "trace.json");
  return std::ranges::count_if(loom::testing::TraceFile(folder / "trace.json").events(), [](const auto& event) {
    return event.phase == "X" && event.name.starts_with("onednn ");
  });
}

bool has_bf16() { return cpu_instruction_set().starts_with("avx512"); }

int64_t threads_of_process() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

}  // namespace

TEST_CASE("oneDNN: no thread but Loom's") {
  if (missing()) return;
  const Threads scope(1);
  const Array a = random(DType::f32, {300, 300}), c(DType::f32, {300, 300});
  const int64_t before = threads_of_process();
  CHECK(taken([&] { cpu_accelerator().gemm({.c = c, .a = a, .b = a, .bias = without()}); }) == 1);
  CHECK(threads_of_process() == before);
}

TEST_CASE("oneDNN: products in any layout, scaled, with a bias, into what is there") {
  if (missing()) return;
  for (const DType t : {DType::f32, DType::bf16}) {
    if (t == DType::bf16 && !has_bf16()) continue;
    int64_t calls = 0;
    const auto check = [&](const Gemm& g) { check_gemm(g), ++calls; };
    const auto all = [&] {
      const Array bias = random(t, {135}), each = random(t, {131, 135});
      for (const Layout layout : {Layout::dense, Layout::transposed}) {
        const Array a = random(t, {131, 129}, layout), b = random(t, {129, 135}, layout);
        const auto old = [&] { return random(t, {131, 135}); };
        check({.c = Array(t, {131, 135}), .a = a, .b = b, .bias = without()});
        check({.c = Array(t, {131, 135}, Layout::transposed), .a = a, .b = b, .bias = without(), .alpha = -0.5});
        check({.c = Array(t, {131, 135}), .a = a, .b = b, .bias = bias});
        check({.c = Array(t, {131, 135}), .a = a, .b = b, .bias = bias, .alpha = 0.5});
        check({.c = Array(t, {131, 135}), .a = a, .b = b, .bias = each});
        check({.c = old(), .a = a, .b = b, .bias = without(), .beta = 1});
        check({.c = random(DType::f32, {131, 135}), .a = a, .b = b, .bias = without(), .beta = 1});
      }
    };
    CHECK(taken(all) == calls);
    // All at once is not there for every processor.
    const Array a = random(t, {131, 129}), b = random(t, {129, 135}), c = random(t, {131, 135});
    check_gemm({.c = c, .a = a, .b = b, .bias = random(t, {135}), .alpha = 2, .beta = 0.25});
  }
}

TEST_CASE("oneDNN: products cut into parts, and batches of them") {
  if (missing()) return;
  const auto all = [] {
    for (const bool with_bias : {false, true}) {
      const Array a = random(DType::f32, {513, 70}), b = random(DType::f32, {70, 1100}, Layout::transposed);
      const Array each = random(DType::f32, {513, 1100});
      check_gemm({.c = Array(DType::f32, {513, 1100}), .a = a, .b = b, .bias = with_bias ? each.view : without()});
    }
    const Array a = random(DType::f32, {3, 2, 90, 80}), b = random(DType::f32, {3, 2, 80, 90}, Layout::transposed);
    const Array bias = random(DType::f32, {90});
    check_gemm({.c = Array(DType::f32, {3, 2, 90, 90}), .a = a, .b = b, .bias = bias, .alpha = 0.5});
    const Array rows = random(DType::f32, {2, 80, 90});
    View shared = rows;
    shared.shape.insert(0, 3);
    shared.strides.insert(0, 0);
    check_gemm({.c = Array(DType::f32, {3, 2, 90, 90}), .a = a, .b = shared, .bias = without()});
  };
  CHECK(taken(all) == 4);
}

TEST_CASE("oneDNN: convolutions and their gradients") {
  if (missing()) return;
  const ConvCase cases[] = {{"1 x 1", {3, 70, 17, 15}, {50, 70, 1, 1}, {}},
                            {"strided", {3, 40, 23, 25}, {40, 40, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}},
                            {"dilated", {2, 20, 17, 19}, {30, 20, 3, 3}, {.padding = {2, 2}, .dilation = {2, 2}}},
                            {"groups", {3, 36, 18, 17}, {60, 12, 3, 3}, {.padding = {1, 0}, .groups = 3}},
                            {"depthwise", {3, 80, 37, 33}, {80, 1, 3, 3}, {.padding = {1, 1}, .groups = 80}},
                            {"one image", {1, 40, 30, 30}, {48, 40, 5, 3}, {.padding = {2, 1}}}};
  for (const DType t : {DType::f32, DType::bf16}) {
    if (t == DType::bf16 && !has_bf16()) continue;
    for (const int threads : {1, 3}) {
      const Threads scope(threads);
      const auto all = [&] {
        for (const ConvCase& c : cases) check_conv(c, t, Layout::dense);
        check_conv(cases[0], t, Layout::transposed);
      };
      // Forward with a bias and without; ours are quicker for the gradient of groups' weights.
      CHECK(taken(all) == 4 * static_cast<int64_t>(std::size(cases) + 1) - 1);
    }
  }
}

TEST_CASE("oneDNN: the gradient of weights of enough products for several parts is of all images") {
  if (missing()) return;
  for (const DType t : {DType::f32, DType::bf16}) {
    if (t == DType::bf16 && !has_bf16()) continue;
    for (const int64_t images : {4, 1})
      for (const int threads : {1, 3}) {
        const Threads scope(threads);
        const ConvCase c{"", {images, 64, 56, 56}, {256 * 4 / images, 64, 1, 1}, {}};
        const Array x(t, c.x), dy = random(t, c.y()), dw(t, c.w);
        for (int64_t i = 0; i < x.view.numel(); ++i) set(x.view, i, 1);  // so dw is a sum of dy
        CHECK(taken([&] { cpu_accelerator().conv2d_grad_weight(dw, dy, x, c.g); }) == 1);
        const int64_t outputs = c.w[0], plane = 56 * 56;
        for (int64_t o = 0; o < outputs; o += 17) {
          double sum = 0;
          for (int64_t n = 0; n < images; ++n)
            for (int64_t q = 0; q < plane; ++q) sum += get(dy, (n * outputs + o) * plane + q);
          CHECK(get(dw, o * 64 + 3) == doctest::Approx(sum).epsilon(t == DType::bf16 ? 0.01 : 1e-3));
        }
      }
  }
}

TEST_CASE("oneDNN: what is left to Loom's kernels") {
  if (missing()) return;
  const auto all = [] {
    for (const DType t : {DType::f64, DType::f16}) {  // other numbers
      const Array a = random(t, {131, 131});
      check_gemm({.c = Array(t, {131, 131}), .a = a, .b = a, .bias = without()});
    }
    const Array small = random(DType::f32, {60, 60}), gaps = random(DType::f32, {131, 131}, Layout::sliced);
    const Array few = random(DType::f32, {4, 1000}), wide = random(DType::f32, {1000, 900});
    check_gemm({.c = Array(DType::f32, {60, 60}), .a = small, .b = small, .bias = without()});
    check_gemm({.c = Array(DType::f32, {131, 131}), .a = gaps, .b = gaps, .bias = without()});
    check_gemm({.c = Array(DType::f32, {4, 900}), .a = few, .b = wide, .bias = without()});
    check_conv({"transformed tiles", {3, 40, 20, 20}, {40, 40, 3, 3}, {}, 10}, DType::f32, Layout::dense);
  };
  CHECK(taken(all) == 0);
}

TEST_CASE("oneDNN: products, convolutions and input gradients have the same bits on any number of threads") {
  if (missing()) return;
  const Array a = random(DType::f32, {700, 600}), b = random(DType::f32, {600, 800});
  const ConvCase conv{"", {7, 64, 30, 30}, {96, 64, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}};
  const Array x = random(DType::f32, conv.x), w = random(DType::f32, conv.w), dy = random(DType::f32, conv.y());
  std::vector<double> product, forward, input;
  for (const int threads : {1, 2, 3, 4}) {
    const Threads scope(threads);
    const Array c(DType::f32, {700, 800}), y(DType::f32, conv.y()), dx(DType::f32, conv.x);
    Accelerator& cpu = cpu_accelerator();
    cpu.gemm({.c = c, .a = a, .b = b, .bias = without()});
    cpu.conv2d(y, x, w, without(), conv.g);
    cpu.conv2d_grad_input(dx, dy, w, conv.g);
    if (threads == 1) product = values(c), forward = values(y), input = values(dx);
    CHECK(values(c) == product);
    CHECK(values(y) == forward);
    CHECK(values(dx) == input);
  }
}
