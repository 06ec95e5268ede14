// Losses as callables with their options; the functions (cross_entropy(x, y)) are in autograd/ops/neural.h.
#pragma once

#include <loom/autograd/ops/neural.h>
#include <loom/nn/module.h>

namespace loom::nn {

struct CrossEntropyLoss {
  Tensor weight = {};
  int64_t ignore_index = -100;
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;

  Tensor operator()(const Tensor& logits, const Tensor& target) const {
    return cross_entropy(logits, target, {weight, ignore_index, reduction, label_smoothing});
  }
  LOOM_MEMBERS()
};

struct NLLLoss {
  Tensor weight = {};
  int64_t ignore_index = -100;
  Reduction reduction = Reduction::mean;

  Tensor operator()(const Tensor& log_probabilities, const Tensor& target) const {
    return nll_loss(log_probabilities, target, {weight, ignore_index, reduction});
  }
  LOOM_MEMBERS()
};

struct MSELoss {
  Reduction reduction = Reduction::mean;

  Tensor operator()(const Tensor& x, const Tensor& target) const { return mse_loss(x, target, reduction); }
  LOOM_MEMBERS()
};

struct L1Loss {
  Reduction reduction = Reduction::mean;

  Tensor operator()(const Tensor& x, const Tensor& target) const { return l1_loss(x, target, reduction); }
  LOOM_MEMBERS()
};

struct SmoothL1Loss {
  Reduction reduction = Reduction::mean;
  double beta = 1;

  Tensor operator()(const Tensor& x, const Tensor& target) const { return smooth_l1_loss(x, target, reduction, beta); }
  LOOM_MEMBERS()
};

struct HuberLoss {
  Reduction reduction = Reduction::mean;
  double delta = 1;

  Tensor operator()(const Tensor& x, const Tensor& target) const { return huber_loss(x, target, reduction, delta); }
  LOOM_MEMBERS()
};

struct BCELoss {
  Tensor weight = {};
  Reduction reduction = Reduction::mean;

  Tensor operator()(const Tensor& x, const Tensor& target) const {
    return binary_cross_entropy(x, target, weight, reduction);
  }
  LOOM_MEMBERS()
};

struct BCEWithLogitsLoss {
  Tensor weight = {};
  Reduction reduction = Reduction::mean;
  Tensor pos_weight = {};

  Tensor operator()(const Tensor& x, const Tensor& target) const {
    return binary_cross_entropy_with_logits(x, target, weight, reduction, pos_weight);
  }
  LOOM_MEMBERS()
};

struct KLDivLoss {
  KlReduction reduction = KlReduction::mean;
  bool log_target = false;

  Tensor operator()(const Tensor& x, const Tensor& target) const { return kl_div(x, target, reduction, log_target); }
  LOOM_MEMBERS()
};

}  // namespace loom::nn
