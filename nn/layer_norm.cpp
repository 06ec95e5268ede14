#include <loom/nn/layer_norm.h>

#include <loom/autograd/ops/fused.h>
#include <loom/autograd/ops/neural.h>
#include <loom/nn/init.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

namespace {

void reset(const Parameter& weight, const Parameter& bias) {
  if (weight.defined()) init::ones_(weight);
  if (bias.defined()) init::zeros_(bias);
}

}  // namespace

LayerNorm::LayerNorm(const Dims& shape, const LayerNormOptions& o) : normalized_shape(shape), eps(o.eps) {
  if (o.elementwise_affine) weight = uninitialized(shape, o);
  if (o.elementwise_affine && o.bias) bias = uninitialized(shape, o);
  if (!context().skip_init) reset_parameters();
}

void LayerNorm::reset_parameters() const { reset(weight, bias); }

Tensor LayerNorm::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  return layer_norm(x, normalized_shape, weight, bias, eps);
}

std::pair<Tensor, Tensor> LayerNorm::join(const Tensor& x, const Tensor& branch) const {
  const ModuleRange range(*this);
  return add_layer_norm(x, branch, normalized_shape, weight, bias, eps);
}

RMSNorm::RMSNorm(const Dims& shape, const RmsNormOptions& o) : normalized_shape(shape), eps(o.eps) {
  if (o.elementwise_affine) weight = uninitialized(shape, o);
  if (!context().skip_init) reset_parameters();
}

void RMSNorm::reset_parameters() const { reset(weight, {}); }

Tensor RMSNorm::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  return rms_norm(x, normalized_shape, weight, eps);
}

std::pair<Tensor, Tensor> RMSNorm::join(const Tensor& x, const Tensor& branch) const {
  const ModuleRange range(*this);
  return add_rms_norm(x, branch, normalized_shape, weight, eps);
}

GroupNorm::GroupNorm(int64_t groups, int64_t channels, const GroupNormOptions& o) : num_groups(groups), eps(o.eps) {
  check(groups > 0 && channels % groups == 0, "GroupNorm: num_channels must be divisible by num_groups, got ", channels,
        " and ", groups);
  if (o.affine) {
    weight = uninitialized({channels}, o);
    bias = uninitialized({channels}, o);
  }
  if (!context().skip_init) reset_parameters();
}

void GroupNorm::reset_parameters() const { reset(weight, bias); }

Tensor GroupNorm::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  return group_norm(x, num_groups, weight, bias, eps);
}

}  // namespace loom::nn
