// SPDX-License-Identifier: Apache-2.0
// A GPU's convolutions against the CPU's in f64, in every layout of the operands. Without a GPU the device is one that
// the host plays.
#include <cmath>

#include <loom/accelerators/cuda.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

#include "conv_case.h"

using namespace loom;
using kernel_test::ConvCase;
using kernel_test::epsilon;

namespace {

enum class Lies : uint8_t { dense, channels_last, turned, stepped };
constexpr Lies all_lies[] = {Lies::dense, Lies::channels_last, Lies::turned, Lies::stepped};

// x with its elements elsewhere in memory.
Tensor laid(const Tensor& x, Lies lies) {
  if (lies == Lies::dense) return x;
  Tensor out = lies == Lies::channels_last
                   ? empty({x.size(0), x.size(2), x.size(3), x.size(1)}, {x.dtype(), x.device()}).permute({0, 3, 1, 2})
               : lies == Lies::turned
                   ? empty({x.size(0), x.size(1), x.size(3), x.size(2)}, {x.dtype(), x.device()}).transpose(2, 3)
                   : empty({x.size(0), x.size(1), x.size(2), 2 * x.size(3)}, {x.dtype(), x.device()})
                         .slice(3, 0, 2 * x.size(3), 2);
  accelerator(x.device()).copy(out, x);
  return out;
}

struct Outcome {
  Tensor y, plain, dx, dw;
};

Outcome convolve(const ConvCase& c, const std::vector<Tensor>& given, Lies lies, DType t, Device device) {
  const auto at = [&](size_t i) { return given[i].to(t).to(device); };
  const Tensor x = laid(at(0), lies), w = laid(at(1), lies), dy = laid(at(2), lies), bias = at(3);
  const auto blank = [&](const Dims& shape) { return laid(full(shape, std::nan(""), {t, device}), lies); };
  Outcome out{blank(c.y()), blank(c.y()), blank(c.x), blank(c.w)};
  Accelerator& a = accelerator(device);
  a.conv2d(out.y, x, w, bias, c.g);
  a.conv2d(out.plain, x, w, View(), c.g);
  a.conv2d_grad_input(out.dx, dy, w, c.g);
  a.conv2d_grad_weight(out.dw, dy, x, c.g);
  return out;
}

void check_case(const ConvCase& c, Lies lies, DType t) {
  CAPTURE(c.what);
  CAPTURE(to_string(t));
  CAPTURE(static_cast<int>(lies));
  std::vector<Tensor> given{randn(c.x), randn(c.w), randn(c.y()), randn({c.w[0]})};
  for (Tensor& x : given) x = x.to(t);
  const Outcome expected = convolve(c, given, Lies::dense, f64, Device());
  const Outcome got = convolve(c, given, lies, t, Device::cuda);
  const auto close = [&](const Tensor& a, const Tensor& b, int64_t terms) {
    const double size = std::sqrt(static_cast<double>(terms)) + 1;
    return abs(a.to(Device()).to(f64) - b).max().item<double>() <=
           (4 * epsilon(t) + 8 * epsilon(t == f64 ? f64 : f32) * size) * size;
  };
  CHECK(close(got.y, expected.y, c.w[1] * c.w[2] * c.w[3]));
  CHECK(close(got.plain, expected.plain, c.w[1] * c.w[2] * c.w[3]));
  CHECK(close(got.dx, expected.dx, c.w[0] / c.g.groups * c.w[2] * c.w[3]));
  CHECK(close(got.dw, expected.dw, c.y()[0] * c.y()[2] * c.y()[3]));
}

}  // namespace

TEST_CASE("a GPU's convolutions: options, layouts, dtypes") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  manual_seed(1);
  for (const ConvCase& c : {ConvCase{"plain", {2, 3, 7, 6}, {4, 3, 3, 3}, {}},
                            {"padding", {3, 4, 5, 8}, {2, 4, 3, 3}, {{1, 1}, {1, 1}}},
                            {"strides leave a rest", {2, 3, 9, 8}, {5, 3, 3, 2}, {{2, 3}, {1, 0}}},
                            {"dilation", {1, 2, 9, 9}, {3, 2, 3, 3}, {{1, 2}, {2, 3}, {2, 3}}},
                            {"groups", {2, 6, 5, 5}, {4, 3, 3, 3}, {{1, 1}, {1, 1}, {1, 1}, 2}},
                            {"depthwise", {3, 8, 6, 6}, {8, 1, 3, 3}, {{1, 1}, {1, 1}, {1, 1}, 8}},
                            {"1 x 1", {2, 8, 4, 5}, {16, 8, 1, 1}, {}},
                            {"one row", {2, 4, 1, 11}, {3, 4, 1, 4}, {{1, 2}, {0, 2}}},
                            {"one channel, one output", {2, 1, 4, 4}, {1, 1, 2, 2}, {}},
                            {"one pixel", {4, 8, 1, 1}, {8, 8, 1, 1}, {}},
                            {"images in parts", {20, 8, 12, 12}, {8, 8, 3, 3}, {{1, 1}, {1, 1}}}})
    for (const Lies lies : all_lies)
      for (const DType t : {f64, f32, f16, bf16}) check_case(c, lies, t);
}
