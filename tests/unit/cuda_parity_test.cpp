// SPDX-License-Identifier: Apache-2.0
// The op sweep's cases on a GPU against the CPU: results and gradients, in every floating dtype and layout. Without a
// GPU the device is one that the host plays (tests/cuda/emulated).
#include <doctest/doctest.h>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/tensor/create.h>

#include "op_sweep/checks.h"

using namespace loom;
using namespace loom::sweep;

namespace {

std::string outcome_of(const Case& c, DType dtype) {
  try {
    return check_device(c, dtype, Device::cuda);
  } catch (const Error& error) {
    return str(to_string(dtype), ": ", error.what());
  }
}

}  // namespace

TEST_CASE("every op gives on a GPU what it gives on the CPU") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  for (const Case& c : all_cases())
    for (const DType dtype : {f64, f32, f16, bf16}) {
      if (dtype != f64 && !c.f64_only.empty()) continue;
      const std::string wrong = outcome_of(c, dtype);
      CHECK_MESSAGE(wrong.empty(), c.name(), ": ", wrong);
    }
}
