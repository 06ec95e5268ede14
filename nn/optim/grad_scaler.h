// Loss scaling (Micikevicius et al. 2017, arXiv:1710.03740): f16 gradients of a loss times a large number do not
// vanish. torch.amp.GradScaler, with DeepSpeed's rules as a choice.
//
//   optim::GradScaler scaler;
//   scaler.scale(loss).backward();
//   scaler.unscale_(adamw);            // before clipping; step does it otherwise
//   scaler.step(adamw);                // not where a gradient is not finite
//   scaler.update();                   // once an iteration, after all steps
//
// Scale, counters and findings are tensors on the losses' device and updated by ops there. Whether a step is made is
// decided there too: on a GPU the host does not wait (Optimizer::step_unless), unless it asks (what step() returns, or
// a scheduler, which waits with an optimizer that has skipped its steps). A whole step may be captured
// (tensor/device_graph.h): scale and counters stay where they are on a GPU.
// Under Fabric all this happens by itself (precision "16-mixed", "16-true").
#pragma once

#include <optional>
#include <unordered_map>

#include <loom/nn/optim/loss_scale.h>
#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

class GradScaler {
 public:
  explicit GradScaler(const GradScalerOptions& options = {}) : scale_(options) {}

  // loss (or outputs) times the scale, in f32 at least.
  Tensor scale(const Tensor& loss);
  void unscale_(Optimizer& optimizer);
  // Unscales unless that has been done; whether the optimizer stepped. Without any gradient it is an error.
  StepOutcome step(Optimizer& optimizer);
  // After all optimizers' steps. new_scale: sets it.
  void update(std::optional<double> new_scale = {});

  // Whether an optimizer's gradients are known not to be finite: 1 or 0, one f32. Undefined before unscale_, and
  // without gradients.
  Tensor found_inf(const Optimizer& optimizer) const;

  bool is_enabled() const { return options().enabled; }
  double get_scale() const;  // reads it; 1 where disabled
  const GradScalerOptions& options() const { return scale_.options(); }

  // scale, growth_tracker, hysteresis; empty where disabled.
  State state_dict() const;
  void check_state_dict(const State& values) const;
  void load_state_dict(const State& values);

 private:
  enum class Stage : uint8_t { ready, unscaled, stepped };
  struct PerOptimizer {
    Stage stage = Stage::ready;
    Tensor found;
  };
  void require_scale(const char* call) const;

  LossScale scale_;
  bool used_ = false;                                              // scale() has been called
  std::unordered_map<const Optimizer*, PerOptimizer> optimizers_;  // since the last update
};

}  // namespace loom::optim
