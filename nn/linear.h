// Affine maps.
#pragma once

#include <loom/nn/module.h>

namespace loom::nn {

struct LinearOptions {
  bool bias = true;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// x [.., in_features] -> x W^T + b [.., out_features]
struct Linear {
  Parameter weight, bias;  // [out_features, in_features], [out_features]

  Linear(int64_t in_features, int64_t out_features, const LinearOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  LOOM_MEMBERS(weight, bias)
};

// x1 [.., in1], x2 [.., in2] -> y[.., k] = x1 W[k] x2^T + b[k] [.., out_features]
struct Bilinear {
  Parameter weight, bias;  // [out_features, in1_features, in2_features], [out_features]

  Bilinear(int64_t in1_features, int64_t in2_features, int64_t out_features, const LinearOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& x1, const Tensor& x2) const;
  LOOM_MEMBERS(weight, bias)
};

}  // namespace loom::nn
