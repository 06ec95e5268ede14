// SPDX-License-Identifier: Apache-2.0
// The op sweep's cases on a GPU against the CPU: results and gradients, in every floating dtype and layout; gradients
// against differences taken there; the same bits again. Without a GPU the device is one that the host plays
// (tests/cuda/emulated); a quick sweep (gpu.h) takes some of the cases in the last two tests.
#include "gpu.h"
#include "op_sweep/checks.h"

using namespace loom;
using namespace loom::sweep;
using gpu_test::has_gpu;
using gpu_test::is_quick;

namespace {

template <class Check>
void for_each_case(const std::string& what, const Check& check) {
  for (const Case& c : all_cases()) {
    std::string wrong;
    try {
      wrong = check(c);
    } catch (const std::exception& error) {
      wrong = str("throws ", error.what());
    }
    if (!wrong.empty()) FAIL_CHECK(c.name(), ", ", what, ": ", wrong);
  }
}

// One in `n` of the cases, always the same; in a full sweep all.
bool is_chosen(const Case& c, size_t n) { return !is_quick() || static_cast<size_t>(&c - all_cases().data()) % n == 0; }

void check_dtype(DType dtype) {
  if (!has_gpu()) return;
  for_each_case(to_string(dtype), [&](const Case& c) {
    if (dtype != f64 && !c.f64_only.empty()) return std::string();
    return check_device(c, dtype, Device::cuda);
  });
}

}  // namespace

TEST_CASE("every op gives on a GPU what it gives on the CPU: f64") { check_dtype(f64); }
TEST_CASE("every op gives on a GPU what it gives on the CPU: f32") { check_dtype(f32); }
TEST_CASE("every op gives on a GPU what it gives on the CPU: f16") { check_dtype(f16); }
TEST_CASE("every op gives on a GPU what it gives on the CPU: bf16") { check_dtype(bf16); }

TEST_CASE("gradients on a GPU agree with central differences taken there") {
  if (!has_gpu()) return;
  for_each_case("f64", [](const Case& c) {
    const bool checked = c.gradient && !c.is_large && is_chosen(c, 20);
    return checked ? check_device_gradient(c, Device::cuda) : "";
  });
}

TEST_CASE("a GPU gives the same bits again") {
  if (!has_gpu()) return;
  for (const DType dtype : {f32, bf16})
    for_each_case("twice", [&](const Case& c) {
      return c.f64_only.empty() && is_chosen(c, 4) ? check_device_repeats(c, dtype, Device::cuda) : "";
    });
}
