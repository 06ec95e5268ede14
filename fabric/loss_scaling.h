// Loss scaling as Fabric does it by itself: losses scaled before backward, gradients unscaled before clipping or
// stepping, steps with non-finite gradients skipped by all ranks, and the scale changed once an iteration.
//
// An iteration is over when every optimizer has stepped in it, or when one that has is about to step again. Of what is
// found in it the scale makes one change: smaller at the first overflow, from the next backward pass on; larger at the
// end. All is decided by the order of calls and by findings that ranks have agreed on, and the scale is the same on all
// ranks without asking.
//
// Of each optimizer's gradients it is known what scale they carry, if any: they are divided by that one. Whatever waits
// when a backward pass begins, of an older scale or of none (clipped, stepped with, set by hand), is brought to the new
// one first, so that sums are of one scale; gradients that were true and to which nothing was added become so again.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <loom/fabric/strategy.h>
#include <loom/nn/optim/loss_scale.h>

namespace loom {

class LossScaling {
 public:
  explicit LossScaling(const optim::GradScalerOptions& options)
      : scale_(options), next_(scale_), in_use_(scale_.value()) {}

  // All optimizers take part from their set-up on.
  void setup_optimizer(const std::shared_ptr<OptimizerSync>& optimizer);
  Tensor before_backward(const Tensor& loss);
  void after_backward();
  // A step calls it. Collective.
  void unscale(OptimizerSync& optimizer);
  // Not 0 if the gradients, unscaled, are not finite on some rank: one f32. Undefined before unscale.
  Tensor found_inf(const OptimizerSync& optimizer) { return held(optimizer).found; }
  // Throws at an overflow that the smallest scale does not prevent, if that was asked for: then the host waits.
  optim::StepOutcome step(OptimizerSync& optimizer);
  void after_zero_grad(OptimizerSync& optimizer);
  // Ranks that ran out of data take over gradients of others, once all know the same scale: before that every gradient
  // is brought to it, afterwards none carries any. What ranks found in different gradients is forgotten.
  void before_adoption();
  void after_adoption();

  const Tensor& in_use() const { return in_use_; }  // of the next backward pass
  double value() const { return in_use_.item<double>(); }

  // The scale's; in an iteration that is not over also what was found and who has stepped; whose gradients have
  // overflowed since its last step.
  optim::State state_dict() const;
  void check_state_dict(const optim::State& saved) const;
  void load_state_dict(const optim::State& saved);

 private:
  struct Held {
    std::weak_ptr<OptimizerSync> optimizer;
    Tensor scale = {};      // that its gradients carry; undefined: none
    Tensor found = {};      // what ranks saw in them since its last step: not 0 if one was not finite
    bool looked = false;    // since the last backward pass
    bool dropped = false;   // here, after they were looked at
    bool finished = false;  // it has stepped in this iteration
    bool lifted = false;    // its gradients carried none before the backward pass
    uint64_t before = 0;  // what its gradients were before the backward pass, or as they were zeroed; 0: none, unknown
  };
  Held& held(const OptimizerSync& optimizer);
  static void refuse_capture();
  static bool are_zero(std::span<const Tensor> gradients);
  Tensor find(Held& own, OptimizerSync& optimizer) const;
  void forget_expired();
  void move_to(Device device);
  void bring_to_scale(Held& h, OptimizerSync& optimizer);
  void finish(Held& own);
  void note(const Tensor& found);
  void end_iteration();
  void forget_findings();
  Tensor load_overflows(const optim::State& saved);

  optim::LossScale scale_;  // as the iteration began
  optim::LossScale next_;   // if it ended now
  Tensor found_;            // in this iteration; undefined: nobody has stepped
  Tensor in_use_;           // the scale of the next backward pass
  std::vector<Held> held_;  // in the order of set-up
  bool used_ = false;       // there has been a backward pass
};

}  // namespace loom
