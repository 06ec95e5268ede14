// What every model of this folder tells besides its layers: samples to train on, and how much a sample costs.
#pragma once

#include <loom/tensor/tensor.h>

namespace bench {

struct Samples {
  loom::Tensor inputs, targets;  // classes (i64)
};

// Of the forward of one sample, in products of matrices and convolutions; all else is left out of the floor.
struct Work {
  double multiply_adds = 0;
  double first = 0;  // of these, in layers whose input needs no gradient
  double nominal =
      0;             // operations of forward and backward by the customary formula of the kind of model, if it has one
  double units = 1;  // what a sample's speed is given in: tokens

  // Floating-point operations of forward and backward.
  double step_flops() const { return 2 * (3 * multiply_adds - first); }
};

}  // namespace bench
