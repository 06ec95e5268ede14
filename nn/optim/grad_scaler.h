// Loss scaling (Micikevicius et al. 2017, arXiv:1710.03740): f16 gradients of a loss times a large number do not
// vanish. torch.amp.GradScaler, with DeepSpeed's rules as a choice.
//
//   optim::GradScaler scaler;
//   scaler.scale(loss).backward();
//   scaler.unscale_(adamw);            // before clipping; step does it otherwise
//   scaler.step(adamw);                // not where a gradient is not finite
//   scaler.update();                   // once an iteration, after all steps
//
// Scale, counters and findings are tensors on the losses' device and updated by ops there: the one place that waits for
// a value is the step, which has to know whether it is made (Optimizer::step_unless). Under Fabric all this happens by
// itself (precision "16-mixed", "16-true").
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <unordered_map>

#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

enum class ScalePolicy : uint8_t {
  dynamic,    // PyTorch's: times growth_factor after growth_interval good iterations in a row
  deepspeed,  // DeepSpeed's: one more before the first growth; hysteresis, min_scale
  fixed,      // always init_scale; overflows are skipped
};

struct GradScalerOptions {
  double init_scale = 65536;
  double growth_factor = 2;
  double backoff_factor = 0.5;
  int64_t growth_interval = 2000;
  ScalePolicy policy = ScalePolicy::dynamic;
  // Overflows that are let pass before the scale shrinks; refilled by a growth, or (consecutive) by any good iteration.
  int64_t hysteresis = 1;
  bool consecutive_hysteresis = false;
  double min_scale = 0;
  bool raise_at_min_scale = false;  // an overflow at min_scale throws, which reads the scale
  bool enabled = true;              // false: every call passes through
};

class GradScaler {
 public:
  // Throws Error for growth_factor <= 1, backoff_factor outside (0, 1), growth_interval or hysteresis < 1, scales <= 0.
  explicit GradScaler(const GradScalerOptions& options = {});

  // loss (or outputs) times the scale, in f32 at least.
  Tensor scale(const Tensor& loss);
  // Gradients of f32 and f64 are divided by the scale in place. 16-bit ones keep it, as they might vanish, and the
  // optimizer divides them where it computes in f32 (Optimizer::set_half_factor).
  void unscale_(Optimizer& optimizer);
  // The same for the gradients that an optimizer steps with in place of its parameters' own (shards); agree makes a
  // finding (one f32) that of all ranks, an all_reduce by maximum.
  using Agree = std::function<void(const Tensor& found)>;
  void unscale_(Optimizer& optimizer, std::span<const Tensor> gradients, const Agree& agree);
  // Unscales unless that has been done; whether the optimizer stepped.
  bool step(Optimizer& optimizer);
  // The caller has stepped it, or not, by found_inf.
  void note_stepped(const Optimizer& optimizer);
  // The optimizer is to step once more before the next update, as others hold scaled gradients; its findings count.
  void again(const Optimizer& optimizer);
  // After all optimizers' steps. new_scale: sets it.
  void update(std::optional<double> new_scale = {});

  // Whether an optimizer's gradients are known not to be finite: 1 or 0, one f32. Undefined before unscale_.
  Tensor found_inf(const Optimizer& optimizer) const;
  bool unscaled(const Optimizer& optimizer) const;  // since the last update
  bool stepped(const Optimizer& optimizer) const;

  bool is_enabled() const { return options_.enabled; }
  double get_scale() const;  // reads it; 1 where disabled
  const GradScalerOptions& options() const { return options_; }

  // scale, growth_tracker, hysteresis; empty where disabled.
  State state_dict() const;
  void check_state_dict(const State& values) const;
  void load_state_dict(const State& values);

 private:
  enum class Stage : uint8_t { ready, unscaled, stepped };
  struct PerOptimizer {
    Stage stage = Stage::ready;
    Tensor found, earlier;  // of this step, of those before it since the last update
  };
  void require_scale(const char* call) const;
  void adapt(const Tensor& found);

  GradScalerOptions options_;
  Tensor scale_;       // f32, as the others 0-dimensional
  Tensor tracker_;     // i64: good iterations since the last change, or (deepspeed) since the last overflow
  Tensor hysteresis_;  // i64: overflows left to pass
  bool used_ = false;  // scale() has been called
  std::unordered_map<const Optimizer*, PerOptimizer> optimizers_;
};

}  // namespace loom::optim
