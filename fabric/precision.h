// In which dtypes a module computes, and what that asks of backward passes and of optimizers (docs/precision.md).
//
// To add a precision: derive from Precision and add a row to precision.cpp's table.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <loom/autograd/fp8.h>
#include <loom/fabric/loss_scaling.h>
#include <loom/fabric/state.h>
#include <loom/fabric/strategy.h>

namespace loom {

// One per Fabric. Only floating tensors are ever converted. Every hook has a default that does nothing.
class Precision {
 public:
  virtual ~Precision() = default;
  virtual std::string_view name() const = 0;
  // Throws where this precision cannot be had on the device, and says what it needs.
  virtual void check_device([[maybe_unused]] Device device) const {}
  // Of a module's parameters and buffers, and of tensors made under init_tensor and init_module; none: as they are.
  virtual std::optional<DType> dtype() const { return {}; }
  // A floating tensor among the arguments of a forward, or among its outputs.
  virtual Tensor convert_input(const Tensor& x) const { return x; }
  virtual Tensor convert_output(const Tensor& x) const { return x; }
  // Lives as long as a forward runs, or a scope of fabric.autocast().
  virtual std::shared_ptr<void> forward_scope() const { return nullptr; }

  // Optimizers: set up; about to have their gradients looked at (clipping); to step; with gradients that are zeroed.
  virtual void setup_optimizer([[maybe_unused]] const std::shared_ptr<OptimizerSync>& optimizer) {}
  virtual void before_clip([[maybe_unused]] OptimizerSync& optimizer) {}
  // After before_clip: one f32 that is not 0 where the gradients are not finite, so that the step will be skipped.
  // Undefined: the step will be made, whatever they are.
  virtual Tensor found_inf([[maybe_unused]] OptimizerSync& optimizer) { return {}; }
  virtual optim::StepOutcome step(OptimizerSync& optimizer) { return optimizer.step({}); }
  // After a step of all ranks, made or skipped: what each has noted for itself becomes common.
  virtual void share([[maybe_unused]] Communicator& ranks) {}
  virtual void after_zero_grad([[maybe_unused]] OptimizerSync& optimizer) {}
  // Ranks that ran out of data before others take over gradients; the state of this precision they have by then.
  virtual void before_adoption() {}
  virtual void after_adoption() {}

  // What is differentiated in place of `loss`.
  virtual Tensor before_backward(const Tensor& loss) { return loss; }
  virtual void after_backward() {}
  // What the loss was multiplied with in the last before_backward; undefined: nothing.
  virtual Tensor gradient_scale() const { return {}; }
  // Whether loss.backward() without Fabric would give wrong gradients, and is an error.
  virtual bool needs_backward() const { return false; }
  // What the next backward pass multiplies the loss with, to be logged; 1: losses are not scaled. Waits for the device.
  virtual double loss_scale() const { return 1; }

  // What every checkpoint keeps of it; nothing by default. On Error nothing has changed.
  virtual StateDict state_dict() const { return {}; }
  virtual void check_state_dict([[maybe_unused]] const StateDict& saved) const {}
  virtual void load_state_dict([[maybe_unused]] const StateDict& saved) {}
};

// "32-true": everything as it is.
class FullPrecision final : public Precision {
 public:
  std::string_view name() const override { return "32-true"; }
};

// Modules, inputs and new tensors in f64; outputs stay f64. "64-true".
class DoublePrecision final : public Precision {
 public:
  std::string_view name() const override { return "64-true"; }
  std::optional<DType> dtype() const override { return DType::f64; }
  Tensor convert_input(const Tensor& x) const override { return x.to(DType::f64); }
  std::shared_ptr<void> forward_scope() const override;
};

// What 16-bit precisions share: outputs of 16 bits become f32, others stay; losses are scaled where there is a scaling.
class ScaledPrecision : public Precision {
 public:
  // half: f16 or bf16. Gradients of bf16 have the range of f32: a scaling for them is an error.
  ScaledPrecision(DType half, const std::optional<optim::GradScalerOptions>& scaling);

  Tensor convert_input(const Tensor& x) const override { return x.to(half_); }
  Tensor convert_output(const Tensor& x) const override { return is_half(x.dtype()) ? x.to(DType::f32) : x; }
  void setup_optimizer(const std::shared_ptr<OptimizerSync>& optimizer) override;
  void before_clip(OptimizerSync& optimizer) override;
  Tensor found_inf(OptimizerSync& optimizer) override;
  optim::StepOutcome step(OptimizerSync& optimizer) override;
  void after_zero_grad(OptimizerSync& optimizer) override;
  void before_adoption() override;
  void after_adoption() override;
  Tensor before_backward(const Tensor& loss) override;
  void after_backward() override;
  Tensor gradient_scale() const override { return scaling_ ? scaling_->in_use() : Tensor(); }
  bool needs_backward() const override { return scaling_.has_value(); }
  double loss_scale() const override { return scaling_ ? scaling_->value() : 1; }
  StateDict state_dict() const override;
  void check_state_dict(const StateDict& saved) const override;
  void load_state_dict(const StateDict& saved) override;

 protected:
  DType half() const { return half_; }

 private:
  DType half_;
  std::optional<LossScaling> scaling_;  // none for bf16, and where it is disabled
};

// Parameters in f32; each op of a forward in the dtype that suits it (autograd/autocast.h). "16-mixed", "bf16-mixed".
class MixedPrecision final : public ScaledPrecision {
 public:
  // scaling: none for bf16; for f16 the usual one, unless given.
  explicit MixedPrecision(DType half, const std::optional<optim::GradScalerOptions>& scaling = {});
  std::string_view name() const override { return half() == DType::f16 ? "16-mixed" : "bf16-mixed"; }
  std::shared_ptr<void> forward_scope() const override;
};

// bf16-mixed with linear layers that multiply in 8 bits on GPUs that can (autograd/fp8.h). "fp8-mixed".
class Fp8Precision final : public ScaledPrecision {
 public:
  explicit Fp8Precision(const Fp8Options& options = {});
  std::string_view name() const override { return "fp8-mixed"; }
  void check_device(Device device) const override;
  std::shared_ptr<void> forward_scope() const override;
  void share(Communicator& ranks) override;
  StateDict state_dict() const override { return layers_->state_dict(); }
  void check_state_dict(const StateDict& saved) const override { layers_->check_state_dict(saved.tensors); }
  void load_state_dict(const StateDict& saved) override { layers_->load_state_dict(saved.tensors); }

 private:
  std::shared_ptr<Fp8Layers> layers_;
};

// Everything in 16 bits; optimizers keep f32 copies of parameters (optim::HalfUpdate). "16-true", "bf16-true".
class HalfPrecision final : public ScaledPrecision {
 public:
  explicit HalfPrecision(DType half, const std::optional<optim::GradScalerOptions>& scaling = {});
  std::string_view name() const override { return half() == DType::f16 ? "16-true" : "bf16-true"; }
  std::optional<DType> dtype() const override { return half(); }
  std::shared_ptr<void> forward_scope() const override;
};

// By Fabric's name: "64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed", "fp8-mixed"; "64", "32",
// "16" and "bf16" stand for 64-true, 32-true, 16-mixed and bf16-mixed. Throws Error with the list for any other.
std::shared_ptr<Precision> make_precision(std::string_view name);
// What is to be said of a name that is understood but better written in another way; empty: nothing.
std::string precision_warning(std::string_view name);

// For a scope, floating tensors are made in a dtype and on a device by default (none: as before), and modules leave
// their parameters uninitialised where `empty`.
class InitScope {
 public:
  InitScope(std::optional<DType> dtype, std::optional<Device> device, bool empty);
  ~InitScope();
  InitScope(const InitScope&) = delete;
  InitScope& operator=(const InitScope&) = delete;

 private:
  Context& context_;
  DType dtype_;
  Device device_;
  bool skip_init_;
};

}  // namespace loom
