#include <loom/nn/batch_norm.h>

#include <loom/autograd/op.h>
#include <loom/autograd/ops/neural.h>
#include <loom/nn/init.h>

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

Tensor BatchNorm::operator()(const Tensor& x) const {
  const bool batch_statistics = training || !options.track_running_stats;
  if (!batch_statistics) return batch_norm(x, running_mean, running_var, weight, bias, false, 0, options.eps);
  if (!options.track_running_stats || autograd::recomputing())
    return batch_norm(x, {}, {}, weight, bias, true, 0, options.eps);
  const Tensor& count = autograd::resolve(num_batches_tracked);
  {
    const NoGrad no_grad;
    count.add_(1);
  }
  const double momentum = options.momentum ? *options.momentum : 1.0 / count.item<double>();
  return batch_norm(x, running_mean, running_var, weight, bias, true, momentum, options.eps);
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
