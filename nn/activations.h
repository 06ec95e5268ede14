// Activation functions as modules, for Sequential; elsewhere call the functions (relu(x)) themselves.
#pragma once

#include <string>

#include <loom/autograd/ops/elementwise.h>
#include <loom/autograd/ops/neural.h>
#include <loom/nn/module.h>

namespace loom::nn {

// Functions without parameters.
#define LOOM_ACTIVATION(Name, function)                                    \
  struct Name {                                                            \
    Tensor operator()(const Tensor& x) const { return loom::function(x); } \
    LOOM_MEMBERS()                                                         \
  };
LOOM_ACTIVATION(ReLU, relu)
LOOM_ACTIVATION(ReLU6, relu6)
LOOM_ACTIVATION(SiLU, silu)
LOOM_ACTIVATION(Mish, mish)
LOOM_ACTIVATION(SELU, selu)
LOOM_ACTIVATION(Tanh, tanh)
LOOM_ACTIVATION(Tanhshrink, tanhshrink)
LOOM_ACTIVATION(Sigmoid, sigmoid)
LOOM_ACTIVATION(LogSigmoid, logsigmoid)
LOOM_ACTIVATION(Softsign, softsign)
LOOM_ACTIVATION(Hardswish, hardswish)
LOOM_ACTIVATION(Hardsigmoid, hardsigmoid)
#undef LOOM_ACTIVATION

struct GELU {
  std::string approximate = "none";  // or "tanh"

  Tensor operator()(const Tensor& x) const {
    check(approximate == "none" || approximate == "tanh", "GELU: approximate is none or tanh, got ", approximate);
    return approximate == "tanh" ? gelu_tanh(x) : gelu(x);
  }
  LOOM_MEMBERS()
};

struct LeakyReLU {
  double negative_slope = 0.01;

  Tensor operator()(const Tensor& x) const { return leaky_relu(x, negative_slope); }
  LOOM_MEMBERS()
};

struct ELU {
  double alpha = 1;

  Tensor operator()(const Tensor& x) const { return elu(x, alpha); }
  LOOM_MEMBERS()
};

struct CELU {
  double alpha = 1;

  Tensor operator()(const Tensor& x) const { return celu(x, alpha); }
  LOOM_MEMBERS()
};

struct Softplus {
  double beta = 1, threshold = 20;

  Tensor operator()(const Tensor& x) const { return softplus(x, beta, threshold); }
  LOOM_MEMBERS()
};

struct Softshrink {
  double lambda = 0.5;

  Tensor operator()(const Tensor& x) const { return softshrink(x, lambda); }
  LOOM_MEMBERS()
};

struct Hardshrink {
  double lambda = 0.5;

  Tensor operator()(const Tensor& x) const { return hardshrink(x, lambda); }
  LOOM_MEMBERS()
};

struct Hardtanh {
  double min_val = -1, max_val = 1;

  Tensor operator()(const Tensor& x) const { return hardtanh(x, min_val, max_val); }
  LOOM_MEMBERS()
};

struct Threshold {
  double threshold, value;  // x where x > threshold, else value

  Tensor operator()(const Tensor& x) const { return loom::threshold(x, threshold, value); }
  LOOM_MEMBERS()
};

struct Softmax {
  int dim = -1;

  Tensor operator()(const Tensor& x) const { return softmax(x, dim); }
  LOOM_MEMBERS()
};

struct Softmin {
  int dim = -1;

  Tensor operator()(const Tensor& x) const { return softmin(x, dim); }
  LOOM_MEMBERS()
};

struct LogSoftmax {
  int dim = -1;

  Tensor operator()(const Tensor& x) const { return log_softmax(x, dim); }
  LOOM_MEMBERS()
};

struct GLU {
  int dim = -1;

  Tensor operator()(const Tensor& x) const { return glu(x, dim); }
  LOOM_MEMBERS()
};

// max(0, x) + weight * min(0, x), the slope being learnt: one, or one per channel (dim 1).
struct PReLU {
  Parameter weight;

  explicit PReLU(int64_t num_parameters = 1, double init = 0.25);
  Tensor operator()(const Tensor& x) const { return prelu(x, weight); }
  LOOM_MEMBERS(weight)
};

}  // namespace loom::nn
