// SPDX-License-Identifier: Apache-2.0
#include "checks.h"

#include <cmath>
#include <limits>

#include <loom/autograd/autocast.h>
#include <loom/autograd/grad_mode.h>

#include "outcome.h"

namespace loom::sweep {

namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();

std::string compare(const std::string& what, const Tensor& given, const Tensor& expected, double tolerance) {
  const double d = distance(given, expected);
  if (d <= tolerance) return {};
  return str(what, " is off by ", d, " (tolerance ", tolerance, ")\n  given ", to_string(given), "\n  expected ",
             to_string(expected));
}

}  // namespace

double distance(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return infinite;
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double most = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    const double d = std::abs(x[i] - y[i]) / (1 + std::abs(y[i]));
    most = std::isnan(d) ? infinite : std::max(most, d);
  }
  return most;
}

std::string check_gradient(const Case& c) {
  const auto inputs = leaves(c, c.draw());
  const auto wanted = differentiated(inputs);
  const Tensor y = c.f(inputs);
  const Tensor cotangent = random_like(y, 1);
  const auto recorded = c.is_large ? gradients({y}, {cotangent}, wanted, true) : std::vector<Tensor>();
  const auto given = gradients({y}, {cotangent}, wanted);
  const NoGrad off;
  std::string wrong;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Tensor expected =
        c.is_large ? recorded[i] : differences(wanted[i], c.step, [&] { return inner(c.f(inputs), cotangent); });
    wrong += compare(str("gradient of input ", i), given[i], expected, c.tolerance);
  }
  return wrong;
}

// The cotangent is one of the variables: what flows through it is part of every rule.
std::string check_second_order(const Case& c) {
  if (c.is_large) return {};
  const auto inputs = leaves(c, c.draw());
  const auto wanted = differentiated(inputs);
  const Tensor y = c.f(inputs);
  const Tensor cotangent = random_like(y, 2).requires_grad_();
  std::vector<Tensor> directions, variables = wanted;
  for (size_t i = 0; i < wanted.size(); ++i) directions.push_back(random_like(wanted[i], 3 + i));
  variables.push_back(cotangent);
  const auto given = gradients(gradients({y}, {cotangent}, wanted, true), directions, variables);
  // The fused backward kernels, where there are some, against the rules made of ordinary ops.
  const auto first_order = [&] {
    const auto g = gradients({c.f(inputs)}, {cotangent}, wanted);
    double total = 0;
    for (size_t i = 0; i < g.size(); ++i) total += inner(g[i], directions[i]);
    return total;
  };
  std::string wrong;
  for (size_t i = 0; i < variables.size(); ++i)
    wrong += compare(i < wanted.size() ? str("second gradient of input ", i) : "second gradient of the cotangent",
                     given[i], differences(variables[i], c.step, first_order), c.tolerance);
  return wrong;
}

namespace {

Tensor repeated(const Tensor& x, int dim) { return x.narrow(dim, 0, 1).expand(x.shape()); }

std::string compare_outcomes(const Case& c, const std::string& layout, In values) {
  std::vector<Tensor> dense;
  dense.reserve(values.size());
  for (const Tensor& x : values) dense.push_back(x.contiguous().clone());
  const auto expected = outcome(c, dense, false), given = outcome(c, values, true);
  std::string wrong;
  for (size_t i = 0; i < given.size(); ++i)
    wrong += compare(str(layout, ": ", part_name(i)), given[i].to(DType::f64), expected[i].to(DType::f64), 1e-11);
  return wrong;
}

}  // namespace

std::string check_layouts(const Case& c) {
  const auto drawn = c.draw();
  std::string wrong = compare_outcomes(c, "transposed inputs", laid(drawn, transposed)) +
                      compare_outcomes(c, "sliced inputs", laid(drawn, spread_out));
  if (!c.fixed_layout.empty()) return wrong;
  for (size_t i = 0; i < drawn.size(); ++i)
    for (int d = 0; d < drawn[i].dim(); ++d) {
      if (drawn[i].size(d) < 2 || drawn[i].numel() == 0) continue;
      auto inputs = drawn;
      inputs[i] = repeated(drawn[i], d);
      wrong += compare_outcomes(c, str("input ", i, " repeated along dimension ", d), inputs);
    }
  return wrong;
}

std::string check_precision(const Case& c, DType dtype) {
  const auto values = c.draw(dtype);
  std::vector<Tensor> exact;
  for (size_t i = 0; i < values.size(); ++i) exact.push_back(c.inputs[i].typed ? values[i].to(DType::f64) : values[i]);
  const auto reference = outcome(c, exact, false);
  const double tolerance = low_tolerance(c, dtype);
  std::string wrong;
  const auto check = [&](const char* layout, In inputs) {
    const auto low = outcome(c, inputs, *layout != 0);
    for (size_t i = 0; i < low.size(); ++i)
      wrong += compare_low(str(to_string(dtype), layout, ": ", part_name(i)), low[i], reference[i],
                           i == 0 ? tolerance : 4 * tolerance);
  };
  check("", values);
  if (!c.is_large) return wrong;
  check(", transposed inputs", laid(values, transposed));
  check(", sliced inputs", laid(values, spread_out));
  return wrong;
}

// Inputs that bf16 holds exactly, so that only what the op itself rounds shows.
std::string check_autocast(const Case& c, DType given, std::optional<DType> expected) {
  std::vector<Tensor> values, exact;
  for (const Tensor& x : c.draw(DType::bf16)) {
    values.push_back(is_floating(x.dtype()) && x.dtype() == DType::bf16 ? x.to(given) : x);
    exact.push_back(x.dtype() == DType::bf16 ? x.to(DType::f64) : x);
  }
  const auto inputs = leaves(c, values);
  const auto wanted = differentiated(inputs);
  const auto run = [&] {
    const Autocast region(DType::bf16);
    return c.f(inputs);
  };
  const Tensor y = run();
  if (!is_floating(y.dtype())) return {};
  std::string wrong;
  if (expected && y.dtype() != *expected) wrong += str("gives ", y.dtype(), " instead of ", *expected, "\n");
  const auto reference = outcome(c, exact, false);
  const double tolerance = low_tolerance(c, DType::bf16);
  wrong += compare_low("result", y, reference[0], tolerance);
  const auto grads = gradients({y}, {random_like(y, 4)}, wanted);
  for (size_t i = 0; i < wanted.size(); ++i) {
    wrong += compare_low(str("gradient ", i), grads[i], reference[i + 1], 4 * tolerance);
    if (grads[i].dtype() != given) wrong += str("gradient ", i, " is ", grads[i].dtype(), " of an input of ", given);
  }
  return wrong;
}

std::string check_inputs_kept(const Case& c) {
  const auto values = c.draw();
  std::vector<Tensor> before;
  before.reserve(values.size());
  for (const Tensor& x : values) before.push_back(x.clone());
  outcome(c, values, false);
  std::string wrong;
  for (size_t i = 0; i < values.size(); ++i)
    if (distance(values[i].to(DType::f64), before[i].to(DType::f64)) != 0 || values[i].version() != 0)
      wrong += str("input ", i, " was written to (version ", values[i].version(), ")");
  return wrong;
}

std::string check_no_gradient(const Case& c) {
  std::vector<Tensor> inputs;
  for (const Tensor& x : c.draw()) {
    inputs.push_back(x.detach());
    if (is_floating(x.dtype())) inputs.back().requires_grad_();
  }
  return c.f(inputs).requires_grad() ? "its result requires grad" : "";
}

}  // namespace loom::sweep
