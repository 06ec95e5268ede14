// Norms without running statistics.
#pragma once

#include <utility>

#include <loom/nn/module.h>

namespace loom::nn {

struct LayerNormOptions {
  double eps = 1e-5;
  bool elementwise_affine = true;
  bool bias = true;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// Over the last dims, whose extents are normalized_shape (Ba, Kiros, Hinton 2016).
struct LayerNorm {
  Parameter weight, bias;
  Dims normalized_shape;
  double eps;

  explicit LayerNorm(const Dims& normalized_shape, const LayerNormOptions& options = {});
  explicit LayerNorm(int64_t last_extent, const LayerNormOptions& options = {})
      : LayerNorm(Dims{last_extent}, options) {}
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  // {x + branch, the norm of that}: where a branch joins a residual stream (add_layer_norm).
  std::pair<Tensor, Tensor> join(const Tensor& x, const Tensor& branch) const;
  LOOM_MEMBERS(weight, bias)
};

struct RmsNormOptions {
  std::optional<double> eps = {};  // none: the smallest step of x's dtype
  bool elementwise_affine = true;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// The same without mean and bias (Zhang, Sennrich 2019).
struct RMSNorm {
  Parameter weight;
  Dims normalized_shape;
  std::optional<double> eps;

  explicit RMSNorm(const Dims& normalized_shape, const RmsNormOptions& options = {});
  explicit RMSNorm(int64_t last_extent, const RmsNormOptions& options = {}) : RMSNorm(Dims{last_extent}, options) {}
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  std::pair<Tensor, Tensor> join(const Tensor& x, const Tensor& branch) const;  // as LayerNorm's
  LOOM_MEMBERS(weight)
};

struct GroupNormOptions {
  double eps = 1e-5;
  bool affine = true;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// Over groups of channels of x [N, num_channels, ..] (Wu, He 2018).
struct GroupNorm {
  Parameter weight, bias;
  int64_t num_groups;
  double eps;

  GroupNorm(int64_t num_groups, int64_t num_channels, const GroupNormOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  LOOM_MEMBERS(weight, bias)
};

}  // namespace loom::nn
