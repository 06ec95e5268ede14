// SPDX-License-Identifier: Apache-2.0
// A parameter for tests of steps that may be skipped.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include <loom/autograd/ops.h>
#include <loom/autograd/parameter.h>
#include <loom/tensor/create.h>

namespace loom::testing {

inline constexpr double infinite = std::numeric_limits<double>::infinity();

// A parameter whose gradient is the loss's scale times `slope`.
struct Weight {
  explicit Weight(double start = 1, DType dtype = f32) : value(full({3}, start, dtype)) {}
  Tensor loss(double slope = 1) const { return sum(value.to(f32) * slope); }
  Parameter value;
};

inline std::vector<NamedTensor> named(const Weight& w, const std::string& name = "w") { return {{name, w.value}}; }

}  // namespace loom::testing
