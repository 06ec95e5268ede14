// Changes of shape, and no change at all, as modules for Sequential.
#pragma once

#include <loom/autograd/ops/shape.h>
#include <loom/nn/module.h>

namespace loom::nn {

struct Identity {
  Tensor operator()(const Tensor& x) const { return x; }
  LOOM_MEMBERS()
};

// [N, d1, d2, ..] -> [N, d1 * d2 * ..]
struct Flatten {
  int start_dim = 1, end_dim = -1;

  Tensor operator()(const Tensor& x) const { return flatten(x, start_dim, end_dim); }
  LOOM_MEMBERS()
};

struct Unflatten {
  int dim;
  Dims sizes;

  Tensor operator()(const Tensor& x) const { return unflatten(x, dim, sizes); }
  LOOM_MEMBERS()
};

}  // namespace loom::nn
