// SPDX-License-Identifier: Apache-2.0
// The GPU of a test: whether there is one, and how much it can be asked to do.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>

namespace gpu_test {

inline bool has_gpu() {
  if (loom::device_count(loom::Device::cuda) > 0) return true;
  MESSAGE("skipped: " << loom::cuda_description());
  return false;
}

// Played by the host: thousands of times slower, and without memory of its own.
inline bool is_emulated() { return loom::cuda_description().starts_with("emulated"); }

// LOOM_SWEEP=quick, or full: how much of a sweep is run; without, all of it on a real device.
inline bool is_quick() {
  const char* const sweep = std::getenv("LOOM_SWEEP");
  return sweep != nullptr ? std::string_view(sweep) == "quick" : is_emulated();
}

}  // namespace gpu_test
