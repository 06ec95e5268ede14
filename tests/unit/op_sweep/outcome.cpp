// SPDX-License-Identifier: Apache-2.0
#include "outcome.h"

#include <cmath>

#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>

#include "../kernel_test.h"

namespace loom::sweep {

std::vector<Tensor> leaves(const Case& c, In values) {
  std::vector<Tensor> out;
  for (size_t i = 0; i < values.size(); ++i) {
    out.push_back(values[i].detach());
    if (c.inputs[i].differentiate && is_floating(values[i].dtype())) out.back().requires_grad_();
  }
  return out;
}

std::vector<Tensor> differentiated(In inputs) {
  std::vector<Tensor> out;
  for (const Tensor& x : inputs)
    if (x.requires_grad()) out.push_back(x);
  return out;
}

Tensor random_like(const Tensor& x, uint64_t seed) {
  Random random(seed + 99);
  return real(x.shape(), -1, 1).make(random).to(x.dtype()).to(x.device());
}

std::vector<Tensor> gradients(const std::vector<Tensor>& outputs, const std::vector<Tensor>& seeds, In inputs,
                              bool create_graph) {
  std::vector<Tensor> from, with;
  for (size_t i = 0; i < outputs.size(); ++i)
    if (outputs[i].requires_grad()) {
      from.push_back(outputs[i]);
      with.push_back(seeds[i]);
    }
  std::vector<Tensor> result(inputs.size());
  if (!from.empty() && !inputs.empty())
    result = grad(from, inputs, with, {.create_graph = create_graph, .allow_unused = true});
  for (size_t i = 0; i < inputs.size(); ++i)
    if (!result[i].defined()) result[i] = zeros_like(inputs[i]);
  return result;
}

double inner(const Tensor& a, const Tensor& b) {
  const NoGrad off;
  return sum(a.to(DType::f64) * b.to(DType::f64)).item<double>();
}

Tensor differences(const Tensor& x, double step, const std::function<double()>& f) {
  Tensor slope = zeros(x.shape(), DType::f64);
  double *const at = x.data<double>(), *const out = slope.data<double>();
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double kept = at[i];
    at[i] = kept + step;
    const double high = f();
    at[i] = kept - step;
    const double low = f();
    at[i] = kept;
    out[i] = (high - low) / (2 * step);
  }
  return slope;
}

Tensor transposed(const Tensor& x) {
  return x.dim() < 2 ? x.clone() : x.transpose(0, -1).contiguous().clone().transpose(0, -1);
}

Tensor spread_out(const Tensor& x) {
  Dims shape = x.shape();
  for (int64_t& n : shape) n = 2 * n + 1;
  Tensor view = full(shape, is_floating(x.dtype()) ? std::nan("") : 1 << 30, {x.dtype(), x.device()});
  for (int d = 0; d < x.dim(); ++d) view = view.slice(d, 1, 1 + 2 * x.size(d), 2);
  view.copy_(x);
  return view;
}

std::vector<Tensor> laid(In values, Tensor (*layout)(const Tensor&)) {
  std::vector<Tensor> out;
  out.reserve(values.size());
  for (const Tensor& x : values) out.push_back(layout(x));
  return out;
}

std::vector<Tensor> outcome(const Case& c, In values, bool strided_cotangent) {
  const auto inputs = leaves(c, values);
  const Tensor y = c.f(inputs);
  std::vector<Tensor> all{y};
  if (!is_floating(y.dtype())) return all;
  const Tensor cotangent = random_like(y, 4);
  for (const Tensor& g :
       gradients({y}, {strided_cotangent ? transposed(cotangent) : cotangent}, differentiated(inputs)))
    all.push_back(g);
  return all;
}

std::string part_name(size_t i) { return i == 0 ? "result" : str("gradient ", i - 1); }

namespace {

double largest(const Tensor& x) {
  double most = 0;
  for (const double v : x.to_vector<double>())
    if (std::isfinite(v)) most = std::max(most, std::abs(v));
  return most;
}

}  // namespace

std::string compare_low(const std::string& what, const Tensor& low, const Tensor& reference, double tolerance) {
  const double scale = std::max(largest(reference), 1e-3);
  const auto x = low.to_vector<double>(), y = reference.to_vector<double>();  // wherever they are
  if (low.shape() != reference.shape()) return str(what, " has shape ", low.shape(), " instead of ", reference.shape());
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    if (const double off = std::abs(x[i] - y[i]); !(off <= tolerance * (std::abs(y[i]) + scale) / 2))
      return str(what, " is ", x[i], " at element ", i, ", in f64 ", y[i], " (tolerance ", tolerance, ")\n");
  }
  return {};
}

double low_tolerance(const Case& c, DType dtype) {
  return kernel_test::epsilon(dtype) * std::sqrt(c.length) * c.factor;
}

}  // namespace loom::sweep
