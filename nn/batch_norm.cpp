#include <loom/nn/batch_norm.h>

#include <loom/autograd/op.h>
#include <loom/autograd/ops/fused.h>
#include <loom/autograd/ops/neural.h>
#include <loom/nn/init.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

BatchNorm::BatchNorm(int64_t num_features, const BatchNormOptions& o) : options(o) {
  if (o.affine) {
    weight = uninitialized({num_features}, o);
    bias = uninitialized({num_features}, o);
  }
  if (o.track_running_stats) {
    running_mean = Buffer(uninitialized({num_features}, o).detach());
    running_var = Buffer(uninitialized({num_features}, o).detach());
    num_batches_tracked = Buffer(zeros({}, {i64, running_mean.device()}));
  }
  if (!context().skip_init) reset_parameters();
}

void BatchNorm::reset_parameters() const {
  if (options.affine) {
    init::ones_(weight);
    init::zeros_(bias);
  }
  if (options.track_running_stats) {
    init::zeros_(running_mean);
    init::ones_(running_var);
    init::zeros_(num_batches_tracked);
  }
}

namespace {

// f(running mean, running variance, training, momentum) with what a call of the layer is to use.
template <class F>
Tensor with_statistics(const BatchNorm& layer, const F& f) {
  const bool tracks = layer.options.track_running_stats;
  if (!layer.training && tracks) return f(layer.running_mean, layer.running_var, false, 0.0);
  if (!tracks || autograd::recomputing()) return f(Tensor(), Tensor(), true, 0.0);
  const Tensor& count = autograd::resolve(layer.num_batches_tracked);
  {
    const NoGrad no_grad;
    count.add_(1);
  }
  const double momentum = layer.options.momentum ? *layer.options.momentum : 1.0 / count.item<double>();
  return f(layer.running_mean, layer.running_var, true, momentum);
}

}  // namespace

Tensor BatchNorm::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  return with_statistics(*this, [&](const Tensor& mean, const Tensor& var, bool batch, double momentum) {
    return batch_norm(x, mean, var, weight, bias, batch, momentum, options.eps);
  });
}

Tensor BatchNorm::relu(const Tensor& x, const Tensor& added) const {
  const ModuleRange range(*this);
  return with_statistics(*this, [&](const Tensor& mean, const Tensor& var, bool batch, double momentum) {
    return batch_norm_relu(x, added, mean, var, weight, bias, batch, momentum, options.eps);
  });
}

Tensor BatchNorm1d::operator()(const Tensor& x) const {
  check(x.dim() == 2 || x.dim() == 3, "BatchNorm1d: expects [N, C] or [N, C, L], got ", x.shape());
  return BatchNorm::operator()(x);
}

Tensor BatchNorm2d::operator()(const Tensor& x) const {
  check(x.dim() == 4, "BatchNorm2d: expects [N, C, H, W], got ", x.shape());
  return BatchNorm::operator()(x);
}

}  // namespace loom::nn
