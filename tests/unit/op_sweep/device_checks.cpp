// SPDX-License-Identifier: Apache-2.0
// Checks of a device against the CPU, and against itself.
#include <cmath>
#include <cstring>

#include <loom/autograd/grad_mode.h>

#include "checks.h"
#include "outcome.h"

namespace loom::sweep {

namespace {

std::vector<Tensor> moved(In values, Device device) {
  std::vector<Tensor> there;
  there.reserve(values.size());
  for (const Tensor& x : values) there.push_back(x.to(device));
  return there;
}

std::vector<Tensor> in_f64(const Case& c, In values) {
  std::vector<Tensor> exact;
  for (size_t i = 0; i < values.size(); ++i) exact.push_back(c.inputs[i].typed ? values[i].to(DType::f64) : values[i]);
  return exact;
}

std::string compare_all(const Case& c, const std::string& what, In inputs, In reference, double tolerance) {
  const auto given = outcome(c, inputs, false);
  std::string wrong;
  for (size_t i = 0; i < given.size(); ++i)
    wrong += compare_low(str(what, ": ", part_name(i)), given[i].to(Device()), reference[i],
                         i == 0 ? tolerance : 4 * tolerance);
  return wrong;
}

}  // namespace

std::string check_device(const Case& c, DType dtype, Device device) {
  const auto values = c.draw(dtype), there = moved(values, device), reference = outcome(c, in_f64(c, values), false);
  const double tolerance = low_tolerance(c, dtype);
  const std::string name = to_string(dtype);
  return compare_all(c, name, there, reference, tolerance) +
         compare_all(c, name + " transposed", laid(there, transposed), reference, tolerance) +
         compare_all(c, name + " sliced", laid(there, spread_out), reference, tolerance);
}

// Elements are moved on the host, where they can be written to one by one.
std::string check_device_gradient(const Case& c, Device device) {
  const auto held = c.draw();
  const auto inputs = leaves(c, moved(held, device));
  const Tensor y = c.f(inputs), cotangent = random_like(y, 1);
  const auto given = gradients({y}, {cotangent}, differentiated(inputs));
  const NoGrad off;
  const auto value = [&] { return inner(c.f(moved(held, device)), cotangent); };
  std::string wrong;
  for (size_t i = 0, n = 0; i < held.size(); ++i) {
    if (!inputs[i].requires_grad()) continue;
    const Tensor expected = differences(held[i], c.step, value), got = given[n++].to(Device());
    if (const double d = distance(got, expected); !(d <= c.tolerance))
      wrong += str("gradient of input ", i, " is off by ", d, " (tolerance ", c.tolerance, ")\n");
  }
  return wrong;
}

namespace {

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(Device()).contiguous(), y = b.to(Device()).contiguous();
  const View u = x, v = y;
  return x.shape() == y.shape() &&
         (x.numel() == 0 || std::memcmp(u.data, v.data, static_cast<size_t>(x.numel()) * item_size(x.dtype())) == 0);
}

}  // namespace

std::string check_device_repeats(const Case& c, DType dtype, Device device) {
  const auto there = moved(c.draw(dtype), device);
  const auto first = outcome(c, there, true), second = outcome(c, there, true);
  std::string wrong;
  for (size_t i = 0; i < first.size(); ++i)
    if (!same_bits(first[i], second[i])) wrong += str(to_string(dtype), ": ", part_name(i), " has other bits\n");
  return wrong;
}

}  // namespace loom::sweep
