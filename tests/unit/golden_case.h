// SPDX-License-Identifier: Apache-2.0
// Ops against PyTorch, case by case: what tests/golden/operator_cases.py and array_cases.py call, in C++.
#pragma once

#include <functional>
#include <utility>

#include "golden.h"

namespace golden {

using Args = std::vector<Tensor>;

struct Results : Args {
  Results(const Tensor& one) : Args{one} {}                                       // NOLINT: cases give what ops give
  Results(const std::pair<Tensor, Tensor>& two) : Args{two.first, two.second} {}  // NOLINT
  Results(std::initializer_list<Tensor> all) : Args(all) {}                       // NOLINT
  Results(Args all) : Args(std::move(all)) {}                                     // NOLINT
};

// "op/what" and the call.
using Call = std::function<Results(const Args&)>;
using Case = std::pair<std::string, Call>;
using Groups = std::vector<std::vector<Case>>;

Groups operator_cases();  // golden_operators_test.cpp
Groups array_cases();     // golden_arrays_test.cpp

// Results and gradients. Floating ones have the dtype of the floating inputs, others the dtype of PyTorch's.
inline void check_case(const Tensors& expected, const Case& test, DType dtype) {
  const auto& [name, call] = test;
  const Args inputs = leaves(expected, name + ".in", dtype, true);
  const Args results = call(inputs), wanted = leaves(expected, name + ".out", dtype, false);
  REQUIRE(results.size() == wanted.size());
  Tensor total;
  for (size_t i = 0; i < results.size(); ++i) {
    check_close(str(name, " result ", i), results[i], expected.at(str(name, ".out.", i)));
    CHECK(results[i].dtype() == wanted[i].dtype());
    const auto cotangent = expected.find(str(name, ".cotangent.", i));
    CHECK(results[i].requires_grad() == (cotangent != expected.end()));
    if (cotangent == expected.end()) continue;
    const Tensor part = sum(results[i] * cotangent->second.to(dtype));
    total = total.defined() ? total + part : part;
  }
  if (total.defined()) total.backward();
  for (const auto& [input, grad] : below(expected, name + ".grad."))
    check_close(str(name, " gradient ", input), inputs[std::stoul(input)].grad(), grad);
}

// All cases of a file, in f64 and f32.
inline void check_cases(const std::string& file_name, const Groups& groups) {
  std::set<std::string> names;
  for (const auto& group : groups)
    for (const Case& test : group) {
      names.insert(test.first);
      CAPTURE(test.first);
      try {
        check_case(file(file_name), test, DType::f64);
        check_case(file(file_name), test, DType::f32);
      } catch (const Error& error) {
        FAIL_CHECK(error.what());
      }
    }
  CHECK(names == cases(file(file_name)));
}

}  // namespace golden
