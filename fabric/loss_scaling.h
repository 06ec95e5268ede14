// Loss scaling as Fabric does it by itself: losses scaled before backward, gradients unscaled before clipping or
// stepping, steps with non-finite gradients skipped by all ranks, and the scale changed where no optimizer would
// notice.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <loom/fabric/strategy.h>
#include <loom/nn/optim/grad_scaler.h>

namespace loom {

class LossScaling {
 public:
  explicit LossScaling(const optim::GradScalerOptions& options) : scaler_(options) {}

  // All optimizers take part from their set-up on.
  void setup_optimizer(const std::shared_ptr<OptimizerSync>& optimizer);
  Tensor before_backward(const Tensor& loss);
  void after_backward();
  // Whether the gradients are finite on all ranks. Collective, once a step.
  bool unscale(OptimizerSync& optimizer);
  bool step(OptimizerSync& optimizer);
  void after_zero_grad(OptimizerSync& optimizer);

  const optim::GradScaler& scaler() const { return scaler_; }
  optim::GradScaler& scaler() { return scaler_; }

 private:
  struct Held {
    std::weak_ptr<OptimizerSync> optimizer;
    uint64_t before = 0;  // what its gradients were before the backward pass
    bool scaled = false;  // it holds gradients of the present scale that it has not stepped with
  };
  Held& held(const OptimizerSync& optimizer);
  void update_if_settled();

  optim::GradScaler scaler_;
  std::vector<Held> held_;
  bool stepped_ = false;  // since the last update
};

}  // namespace loom
