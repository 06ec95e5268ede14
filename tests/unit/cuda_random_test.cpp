// SPDX-License-Identifier: Apache-2.0
// Random numbers on a GPU: the CPU's bits, whatever the dtype, size and layout. Without a GPU the device is one that
// the host plays (tests/cuda/emulated).
#include <doctest/doctest.h>

#include <loom/accelerators/cuda.h>

#include "device_array.h"

using namespace loom;
using kernel_test::Array;
using kernel_test::DeviceArray;
using kernel_test::Layout;

namespace {

constexpr Philox draws[] = {{1, 0, 0}, {0x123456789abcdefu, 3, 77}, {5, 1, 0xfffffffeu}};

bool equal_bits(const Array& a, const Array& b) { return a.memory == b.memory; }

// Draws into arrays that hold the same before.
void compare(Random kind, DType t, const Dims& shape, Layout layout, double a, double b, const Philox& state) {
  Array here(t, shape, layout), there(t, shape, layout);
  const DeviceArray y(there);
  accelerator(Device::cpu).random(kind, here, a, b, state);
  accelerator(Device::cuda).random(kind, y, a, b, state);
  y.fetch(there);
  CHECK_MESSAGE(equal_bits(here, there), static_cast<int>(kind), " ", to_string(t), " ", to_string(shape));
}

// Masks, results and gradients where `values` of the 2^16 values of an element's bits keep it.
void compare_dropout(DType t, const Dims& shape, Layout layout, uint32_t values, const Philox& state) {
  const double scale = values > 0 ? 65536.0 / values : 0;
  const Array x = kernel_test::random(t, shape, layout);
  Array y(t, shape), mask(boolean, shape), dx(t, shape);
  accelerator(Device::cpu).dropout(y, mask, x, values, scale, state);
  accelerator(Device::cpu).dropout_grad(dx, x, mask, scale);
  Array other_y(t, shape), other_mask(boolean, shape), other_dx(t, shape);
  const DeviceArray from(x), to(other_y), kept(other_mask), back(other_dx);
  accelerator(Device::cuda).dropout(to, kept, from, values, scale, state);
  accelerator(Device::cuda).dropout_grad(back, from, kept, scale);
  to.fetch(other_y);
  kept.fetch(other_mask);
  back.fetch(other_dx);
  CHECK(equal_bits(y, other_y));
  CHECK(equal_bits(mask, other_mask));
  CHECK(equal_bits(dx, other_dx));
}

}  // namespace

TEST_CASE("random numbers on a GPU have the CPU's bits") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  for (const Philox& state : draws)
    for (const Dims& shape : {Dims{}, Dims{0}, Dims{1}, Dims{7}, Dims{3, 5}, Dims{1023}, Dims{2, 3, 4}, Dims{65, 33}})
      for (const Layout layout : kernel_test::layouts) {
        for (const DType t : kernel_test::floating) {
          compare(Random::uniform, t, shape, layout, -0.3, 1.7, state);
          compare(Random::uniform, t, shape, layout, 1e30, 1e30, state);
          compare(Random::normal, t, shape, layout, 0.5, 2.0, state);
        }
        for (int t = 0; t < dtype_count; ++t) {
          compare(Random::bernoulli, static_cast<DType>(t), shape, layout, 0.3, 0, state);
          if (static_cast<DType>(t) == boolean) continue;
          compare(Random::integers, static_cast<DType>(t), shape, layout, 0, 100, state);
          compare(Random::integers, static_cast<DType>(t), shape, layout, -5, 9, state);
        }
      }
}

TEST_CASE("dropout on a GPU has the CPU's mask and bits") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  for (const Philox& state : draws)
    for (const DType t : kernel_test::floating)
      for (const Layout layout : kernel_test::layouts)
        for (const Dims& shape : {Dims{1}, Dims{13}, Dims{3, 5}, Dims{1024}, Dims{65, 33}})
          for (const uint32_t values : {0u, 1u, 45875u, 65535u, 65536u})
            compare_dropout(t, shape, layout, values, state);
}
