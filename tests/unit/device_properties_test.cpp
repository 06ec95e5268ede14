// SPDX-License-Identifier: Apache-2.0
// What devices are said to be able to do.
#include <doctest/doctest.h>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/machine.h>

using namespace loom;

namespace {

double tera(const DeviceProperties& device, DType dtype, bool tf32 = false) {
  return device.peak_flops(dtype, tf32) / 1e12;
}

}  // namespace

TEST_CASE("peaks are those of the data sheets, at the data sheets' clocks") {
  const DeviceProperties a100{.multiprocessors = 108, .major = 8, .minor = 0, .clock = 1.41e9};
  CHECK(tera(a100, bf16) == doctest::Approx(312).epsilon(0.005));
  CHECK(tera(a100, f16) == tera(a100, bf16));
  CHECK(tera(a100, f32, true) == doctest::Approx(156).epsilon(0.005));
  CHECK(tera(a100, f32) == doctest::Approx(19.5).epsilon(0.005));
  CHECK(tera(a100, f64) == doctest::Approx(19.5).epsilon(0.005));
  const DeviceProperties h100{.multiprocessors = 132, .major = 9, .minor = 0, .clock = 1.83e9};
  CHECK(tera(h100, bf16) == doctest::Approx(989.4).epsilon(0.005));
  CHECK(tera(h100, f32, true) == doctest::Approx(494.7).epsilon(0.005));
  const DeviceProperties l40s{.multiprocessors = 142, .major = 8, .minor = 9, .clock = 2.52e9};
  CHECK(tera(l40s, bf16) == doctest::Approx(366).epsilon(0.02));
  CHECK(tera(l40s, f32) == doctest::Approx(91.6).epsilon(0.005));
}

TEST_CASE("what is not known is 0") {
  const DeviceProperties h100{.multiprocessors = 132, .major = 9, .minor = 0, .clock = 1.98e9};
  CHECK(h100.peak_flops(i64) == 0);
  const DeviceProperties later{.multiprocessors = 132, .major = 99, .minor = 0, .clock = 1.98e9};
  CHECK(later.peak_flops(bf16) == 0);
  const DeviceProperties here = device_properties();
  CHECK(here.peak_flops(f32) == 0);
  CHECK_FALSE(here.name.empty());
  CHECK(here.memory == usable_memory());
  CHECK(here.multiprocessors >= 1);
  CHECK(here.major == 0);
}

TEST_CASE("a GPU there is not is an error that says why") {
  const int count = device_count(Device::cuda);
  CHECK_THROWS_WITH_AS(
      device_properties({Device::cuda, count}),
      str("device cuda:", count, ": there are ", count, " CUDA devices (", cuda_description(), ")").c_str(), Error);
}
