// Steps of optimizers: what they read and write, and their settings.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include <loom/accelerators/captured.h>
#include <loom/accelerators/dtype.h>
#include <loom/accelerators/philox.h>

namespace loom {

// Elements without gaps; null data where there are none.
struct Dense {
  void* data = nullptr;
  DType dtype = DType::f32;
};
// What an optimizer's step reads and writes of one parameter, or of a piece of it: dense arrays of numel elements.
struct UpdatePiece {
  int64_t numel = 0;
  Dense value, grad;
  std::array<Dense, 3> states;     // f32 or f64
  int64_t step = 1;                // 1 for the first step
  const int64_t* count = nullptr;  // or: in the device's memory
  // f32: what the step reads and writes in place of value, a 16-bit one, which becomes its rounding. Or none.
  Dense master;
  bool value_written = false;  // by others: elements of value that are not the master's rounding go to the master first
  // One f32 that the gradient is multiplied with; none: 1.
  Dense factor;
  // How a 16-bit value without master is rounded: to nearest, or stochastically with these numbers.
  std::optional<Philox> rounding;
};

struct SgdStep {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, maximize;
  StepControl control = {};
};
struct AdamStep {
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled, amsgrad, maximize;  // decoupled: AdamW
  StepControl control = {};
};
struct AdagradStep {
  double lr, lr_decay, weight_decay, eps;
  bool maximize;
  StepControl control = {};
};
struct RmspropStep {
  double lr, alpha, eps, weight_decay, momentum;
  bool centered, maximize;
  StepControl control = {};
};

}  // namespace loom
