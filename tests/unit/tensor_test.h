// SPDX-License-Identifier: Apache-2.0
// What tests of tensors read: a tensor as one line of text, and the text of an error.
#pragma once

#include <string>

#include <doctest/doctest.h>

#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>
#include <loom/tensor/tensor.h>

#include "../error_of.h"

namespace tensor_test {

using namespace loom;
using loom::testing::error_of;

// dtype, shape and the elements in row-major order: "f32[2, 2] 1 2 3 4".
inline std::string show(const Tensor& x) {
  std::string out = str(x.dtype(), x.shape());
  for (const double value : x.to_vector<double>()) out += " " + text::number(value);
  return out;
}

// 0, 1, 2, ... in this shape.
inline Tensor counting(const Dims& shape, DType dtype = DType::f32) {
  return raw::reshape(arange(shape.numel(), dtype), shape);
}

}  // namespace tensor_test
