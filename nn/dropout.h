// Dropout (Hinton et al. 2012): only in training.
#pragma once

#include <loom/autograd/ops/neural.h>
#include <loom/nn/module.h>

namespace loom::nn {

// Zeroes elements with probability p, as loom::dropout rounds it, and scales the others by 1 / (1 - p).
struct Dropout {
  double p;
  Training training;

  explicit Dropout(double probability = 0.5);
  Tensor operator()(const Tensor& x) const { return dropout(x, p, training); }
  LOOM_MEMBERS(training)
};

// Zeroes whole channels: x [N, C, ..].
struct Dropout2d {
  double p;
  Training training;

  explicit Dropout2d(double probability = 0.5);
  Tensor operator()(const Tensor& x) const;
  LOOM_MEMBERS(training)
};

}  // namespace loom::nn
