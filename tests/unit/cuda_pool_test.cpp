// SPDX-License-Identifier: Apache-2.0
// Pooling on a GPU against the CPU: planes and channels-last images, windows of all kinds. Without a GPU the device is
// one that the host plays (tests/cuda/emulated).
#include <doctest/doctest.h>

#include <loom/accelerators/cuda.h>

#include "device_array.h"

using namespace loom;
using kernel_test::Array;
using kernel_test::DeviceArray;

namespace {

// [N, C, H, W] in dense memory.
Array images(DType t, const Dims& s, bool channels_last) {
  Array out = kernel_test::random(t, channels_last ? Dims{s[0], s[2], s[3], s[1]} : s);
  if (channels_last) {
    const Dims stored = out.view.strides;
    out.view.strides = {stored[0], stored[3], stored[1], stored[2]};
    out.view.shape = s;
  }
  return out;
}

void check_equal(const char* what, const Array& here, const DeviceArray& there) {
  Array given(here.view.dtype, {0});
  given.memory = here.memory;
  there.fetch(given);
  CHECK_MESSAGE(given.memory == here.memory, what, " ", to_string(here.view.dtype), " ", to_string(here.view.shape));
}

int64_t windows(int64_t extent, const PoolGeometry& g, size_t side) {
  return (extent + 2 * g.padding[side] - g.dilation[side] * (g.kernel[side] - 1) - 1) / g.stride[side] + 1;
}

void compare(DType t, const Dims& in, const PoolGeometry& g, bool last) {
  Accelerator &here = accelerator(Device::cpu), &there = accelerator(Device::cuda);
  const Dims out{in[0], in[1], windows(in[2], g, 0), windows(in[3], g, 1)};
  const Array x = images(t, in, last), dy = images(t, out, last);
  const Array y = images(t, out, last), dx = images(t, in, last), index = images(i64, out, last);
  const DeviceArray x_there(x), dy_there(dy), y_there(y), dx_there(dx), index_there(index);
  here.max_pool2d(y, index, x, g);
  there.max_pool2d(y_there, index_there, x_there, g);
  check_equal("max_pool2d", y, y_there);
  check_equal("max_pool2d's index", index, index_there);
  here.max_pool2d_grad(dx, dy, index, g);
  there.max_pool2d_grad(dx_there, dy_there, index_there, g);
  check_equal("max_pool2d_grad", dx, dx_there);
  if (g.dilation[0] > 1) return;
  here.avg_pool2d(y, x, g);
  there.avg_pool2d(y_there, x_there, g);
  check_equal("avg_pool2d", y, y_there);
  here.avg_pool2d_grad(dx, dy, g);
  there.avg_pool2d_grad(dx_there, dy_there, g);
  check_equal("avg_pool2d_grad", dx, dx_there);
}

}  // namespace

TEST_CASE("pooling on a GPU has the CPU's bits") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  const PoolGeometry geometries[] = {
      {.kernel = {2, 2}, .stride = {2, 2}},
      {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}},
      {.kernel = {3, 2}, .stride = {1, 3}, .padding = {1, 0}, .count_include_pad = false},
      {.kernel = {1, 5}, .stride = {1, 2}, .padding = {0, 2}},
      {.kernel = {2, 2}, .stride = {1, 1}, .padding = {1, 1}, .dilation = {2, 3}},
      {.kernel = {2, 1}, .stride = {1, 1}, .padding = {1, 0}, .dilation = {12, 1}},  // windows in the padding alone
  };
  for (const PoolGeometry& g : geometries)
    for (const DType t : kernel_test::floating)
      for (const bool last : {false, true})
        for (const Dims& in : {Dims{2, 3, 11, 9}, Dims{1, 5, 12, 16}, Dims{3, 1, 11, 7}}) compare(t, in, g, last);
}
