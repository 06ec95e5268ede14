// SPDX-License-Identifier: Apache-2.0
// What a case gives: its result and the gradients of its inputs, and how they are compared. What checks are made of.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "case.h"

namespace loom::sweep {

// Fresh leaves on the same values; those to be differentiated require grad.
std::vector<Tensor> leaves(const Case& c, In values);
std::vector<Tensor> differentiated(In inputs);
// A fixed direction, unlike ones or anything symmetric.
Tensor random_like(const Tensor& x, uint64_t seed);
// d <outputs, seeds> / d inputs; zeros where an input does not matter.
std::vector<Tensor> gradients(const std::vector<Tensor>& outputs, const std::vector<Tensor>& seeds, In inputs,
                              bool create_graph = false);
double inner(const Tensor& a, const Tensor& b);
// Central differences of a scalar function of x's elements (f64, on the host), which are changed in place and put back.
Tensor differences(const Tensor& x, double step, const std::function<double()>& f);

// The same values elsewhere in memory: row-major of the transposed shape; every second element, from 1, of something
// larger that is full of what a result shows.
Tensor transposed(const Tensor& x);
Tensor spread_out(const Tensor& x);
std::vector<Tensor> laid(In values, Tensor (*layout)(const Tensor&));  // each of them so

// Result and gradients of a case on given inputs; the cotangent has a layout too.
std::vector<Tensor> outcome(const Case& c, In values, bool strided_cotangent);
// What of an outcome: "result", "gradient 0" ..
std::string part_name(size_t i);
// Relative to each element and, as sums cancel, to the largest; nothing where all are within the tolerance.
std::string compare_low(const std::string& what, const Tensor& low, const Tensor& reference, double tolerance);
double low_tolerance(const Case& c, DType dtype);

}  // namespace loom::sweep
