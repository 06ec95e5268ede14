// SPDX-License-Identifier: Apache-2.0
// Tensors on different devices: every public op that takes two or more says so by its own name, before a kernel sees
// another device's pointer. The op sweep's cases, one input at a time as if it were on a GPU.
#include <set>

#include <doctest/doctest.h>

#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

#include "op_sweep/checks.h"

using namespace loom;
using namespace loom::sweep;

namespace {

// x's values, under a device that this build or machine may lack: only good for being refused.
Tensor elsewhere(const Tensor& x) {
  const Tensor dense = x.detach().contiguous().clone();
  return from_blob(View(dense).data, dense.shape(), dense.dtype(), Device::cuda, [dense] {});
}

std::string error_of(const Case& c, const std::vector<Tensor>& inputs) {
  try {
    c.f(inputs);
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

// A CPU tensor without dimensions is a number: it goes along with any device.
bool all_others_are_numbers(const std::vector<Tensor>& inputs, size_t i) {
  for (size_t k = 0; k < inputs.size(); ++k)
    if (k != i && inputs[k].dim() > 0) return false;
  return true;
}

}  // namespace

TEST_CASE("every op refuses tensors on two devices, by its own name") {
  const std::string here = str(Device()), there = str(Device(Device::cuda));
  // Make something where an input lies, before the op.
  const std::set<std::string> composed = {"embedding (padding_idx)",
                                          "scaled_dot_product_attention (nothing to attend to)"};
  std::set<std::string> ops;
  for (const Case& c : all_cases()) {
    const std::vector<Tensor> drawn = c.draw(DType::f32);
    if (drawn.size() < 2 || composed.contains(c.name())) continue;
    for (size_t i = 0; i < drawn.size(); ++i) {
      if (all_others_are_numbers(drawn, i)) continue;
      std::vector<Tensor> inputs = drawn;
      for (Tensor& x : inputs) x = x.detach();
      inputs[i] = elsewhere(drawn[i]);
      const std::string said = error_of(c, inputs), start = c.op + ": tensors are on ";
      const bool right = said == str(start, here, " and ", there) || said == str(start, there, " and ", here);
      CHECK_MESSAGE(right, c.name(), ", input ", i, ": ", said);
      ops.insert(c.op);
    }
  }
  CHECK(ops.size() > 60);
}
