// SPDX-License-Identifier: Apache-2.0
// Results of PyTorch (tests/golden), and how close to them is close enough.
#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>
#include <loom/tensor/safetensors.h>

namespace golden {

using namespace loom;

using Tensors = std::map<std::string, Tensor>;

inline const Tensors& file(const std::string& name) {
  static std::map<std::string, Tensors> files;
  Tensors& tensors = files[name];
  if (tensors.empty()) tensors = load_safetensors(std::string(LOOM_TEST_DATA) + "/" + name + ".safetensors").tensors;
  return tensors;
}

// The entries below a prefix, without it: below(all, "linear.state.") = {"weight": .., "bias": ..}.
inline Tensors below(const Tensors& all, const std::string& prefix) {
  Tensors out;
  for (auto at = all.lower_bound(prefix); at != all.end() && at->first.starts_with(prefix); ++at)
    out[at->first.substr(prefix.size())] = at->second;
  return out;
}

// The entries numbered "name.0", "name.1", .. as leaves of this dtype.
inline std::vector<Tensor> leaves(const Tensors& all, const std::string& name, DType dtype, bool with_grad) {
  std::vector<Tensor> out;
  for (size_t i = 0;; ++i) {
    const auto found = all.find(str(name, ".", i));
    if (found == all.end()) return out;
    const Tensor& x = found->second;
    out.push_back(is_floating(x.dtype()) ? x.to(dtype).clone() : x.clone());
    if (with_grad && is_floating(x.dtype())) out.back().requires_grad_();
  }
}

// The names of a file's cases: what stands before the first dot.
inline std::set<std::string> cases(const Tensors& all) {
  std::set<std::string> out;
  for (const auto& [name, tensor] : all) out.insert(name.substr(0, name.find('.')));
  return out;
}

// What is stored was computed in f64 and rounded to f32 once: half a step of f32 for results in f64. In f32 every
// operation rounds, relative to the largest values on the way: 100 steps. Whole numbers are the same, NaN and
// infinities stand in the same places.
inline void check_close(const std::string& what, const Tensor& got, const Tensor& expected) {
  CAPTURE(what);
  REQUIRE(got.defined());
  REQUIRE_MESSAGE(got.shape() == expected.shape(), str(got.shape(), " instead of ", expected.shape()));
  const std::vector<double> a = got.to_vector<double>(), b = expected.to_vector<double>();
  const double step = std::numeric_limits<float>::epsilon();
  double largest = 1, worst = 0;
  for (const double v : b)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(v));
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double allowed = !is_floating(got.dtype())   ? 0
                           : got.dtype() == DType::f64 ? 0.6 * step * std::abs(b[i]) + 1e-11 * largest
                                                       : 100 * step * largest;
    const double error = std::isfinite(b[i]) ? std::abs(a[i] - b[i]) / allowed : NAN;
    worst = error <= worst ? worst : error;  // NaN is the worst
  }
  CHECK_MESSAGE(worst <= 1, str(got.dtype(), ": off by ", worst, " times what is allowed; got\n", to_string(got),
                                "\nexpected\n", to_string(expected)));
}

}  // namespace golden
