// The number that a loss is multiplied with, and how it changes: what GradScaler and Fabric's loss scaling share.
#pragma once

#include <span>

#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

enum class ScalePolicy : uint8_t {
  dynamic,    // PyTorch's: times growth_factor after growth_interval good iterations in a row
  deepspeed,  // DeepSpeed's: one more before the first growth; hysteresis, min_scale
  fixed,      // always init_scale, whatever a checkpoint says; overflows are skipped
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
  bool raise_at_min_scale = false;  // a step's overflow at min_scale throws, which reads the scale
  bool enabled = true;              // false: every call passes through
};

// A value: tensors in it are replaced, never written to, but by become(). They lie on the device of the losses.
class LossScale {
 public:
  // Throws Error for growth_factor <= 1, backoff_factor outside (0, 1), growth_interval or hysteresis < 1, scales <= 0.
  explicit LossScale(const GradScalerOptions& options);

  const GradScalerOptions& options() const { return options_; }
  const Tensor& value() const { return scale_; }  // one f32, 0-dimensional
  void set(double scale);
  void to(Device device);
  // As it is after an iteration in which a gradient was not finite (found: one f32 that is not 0), or all were.
  LossScale after(const Tensor& found) const;
  // Takes over what another one is; on a GPU into the memory that this one has, where a captured step looks for it.
  void become(const LossScale& other);
  // Throws Error if raise_at_min_scale is set and this finding asks for a smaller scale than the smallest.
  void check_room(const Tensor& found) const;

  // scale, growth_tracker, hysteresis.
  State state_dict() const;
  void check_state_dict(const State& values) const;
  void load_state_dict(const State& values);

 private:
  Tensor shrinks(const Tensor& found) const;

  GradScalerOptions options_;
  Tensor scale_;
  Tensor tracker_;     // i64: good iterations since the last change, or (deepspeed) since the last overflow
  Tensor hysteresis_;  // i64: overflows left to pass
};

// loss (or outputs) times the scale, in f32 at least.
Tensor scaled(const Tensor& loss, const Tensor& scale);

// Divides an optimizer's gradients by their scale; the result (one f32) is 1 where one is not finite, else 0. Gradients
// of f32 and f64 are divided in place. 16-bit ones keep the scale, as they might vanish, and the optimizer divides them
// where it computes in f32 (Optimizer::set_half_factor).
Tensor unscale(Optimizer& optimizer, std::span<const Tensor> gradients, const Tensor& scale);

}  // namespace loom::optim
