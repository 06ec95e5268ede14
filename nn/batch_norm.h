// Batch norm (Ioffe, Szegedy 2015). Calls in training move the running statistics, though the call is const: they are
// shared state, not part of the function. A recomputation (autograd/checkpoint.h) does not move them again.
#pragma once

#include <loom/nn/module.h>

namespace loom::nn {

struct BatchNormOptions {
  double eps = 1e-5;
  std::optional<double> momentum = 0.1;  // none: the running statistics are plain averages
  bool affine = true;
  bool track_running_stats = true;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// Over x [N, num_features, ..] of any rank.
struct BatchNorm {
  Parameter weight, bias;
  Buffer running_mean, running_var, num_batches_tracked;
  BatchNormOptions options;
  Training training;

  explicit BatchNorm(int64_t num_features, const BatchNormOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  // relu of it, or of its sum with what is added, of x's shape (batch_norm_relu).
  Tensor relu(const Tensor& x, const Tensor& added = {}) const;
  LOOM_MEMBERS(weight, bias, running_mean, running_var, num_batches_tracked, training)
};

// x [N, C] or [N, C, L]
struct BatchNorm1d : BatchNorm {
  using BatchNorm::BatchNorm;
  Tensor operator()(const Tensor& x) const;
};

// x [N, C, H, W]
struct BatchNorm2d : BatchNorm {
  using BatchNorm::BatchNorm;
  Tensor operator()(const Tensor& x) const;
};

}  // namespace loom::nn
