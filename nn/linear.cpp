#include <loom/nn/linear.h>

#include <cmath>

#include <loom/autograd/ops.h>
#include <loom/nn/init.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

Linear::Linear(int64_t in_features, int64_t out_features, const LinearOptions& options)
    : weight(uninitialized({out_features, in_features}, options)) {
  if (options.bias) bias = uninitialized({out_features}, options);
  if (!context().skip_init) reset_parameters();
}

void Linear::reset_parameters() const {
  init::kaiming_uniform_(weight, std::sqrt(5.0));
  if (!bias.defined()) return;
  const int64_t fan_in = weight.size(1);
  const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  init::uniform_(bias, -bound, bound);
}

Tensor Linear::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  return linear(x, weight, bias);
}

Bilinear::Bilinear(int64_t in1_features, int64_t in2_features, int64_t out_features, const LinearOptions& options)
    : weight(uninitialized({out_features, in1_features, in2_features}, options)) {
  if (options.bias) bias = uninitialized({out_features}, options);
  if (!context().skip_init) reset_parameters();
}

void Bilinear::reset_parameters() const {
  const double bound = 1 / std::sqrt(static_cast<double>(weight.size(1)));
  init::uniform_(weight, -bound, bound);
  if (bias.defined()) init::uniform_(bias, -bound, bound);
}

Tensor Bilinear::operator()(const Tensor& x1, const Tensor& x2) const {
  const ModuleRange range(*this);
  const Tensor y = einsum("...i,kij,...j->...k", {x1, weight, x2});
  return bias.defined() ? y + bias : y;
}

}  // namespace loom::nn
