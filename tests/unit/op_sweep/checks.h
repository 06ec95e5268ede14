// SPDX-License-Identifier: Apache-2.0
// The checks that are made of every case.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "case.h"

namespace loom::sweep {

// Each returns what is wrong, or nothing.
std::string check_gradient(const Case& c);      // against central differences, with a random cotangent
std::string check_second_order(const Case& c);  // gradients of <gradient, random> against differences of gradients
std::string check_layouts(const Case& c);       // strided, offset and repeated inputs give what contiguous ones give
// Forward and gradient against f64 on the same values; where shapes are large, of strided and offset inputs too.
std::string check_precision(const Case& c, DType dtype);
std::string check_device(const Case& c, DType dtype, Device device);  // there against the CPU's f64, in all layouts
std::string check_device_gradient(const Case& c, Device device);      // as check_gradient, there
std::string check_device_repeats(const Case& c, DType dtype, Device device);  // twice the same, bit for bit
std::string check_inputs_kept(const Case& c);  // neither forward nor backward writes to the inputs
// Under autocast to bf16, inputs in `given`; expected: dtype of the result.
std::string check_autocast(const Case& c, DType given, std::optional<DType> expected);
std::string check_no_gradient(const Case& c);  // for ops declared to have none

// The largest |a - b| / (1 + |b|); infinite where shapes differ or one is NaN and the other is not.
double distance(const Tensor& a, const Tensor& b);

}  // namespace loom::sweep
