// In which dtypes a module computes, and what that asks of backward passes and of optimizers.
//
// To add a precision: derive from Precision and add a row to precision.cpp's table.
#pragma once

#include <memory>
#include <string_view>

#include <loom/fabric/state.h>
#include <loom/fabric/strategy.h>

namespace loom {

// One per Fabric. Only floating tensors are ever converted.
class Precision {
 public:
  virtual ~Precision() = default;
  virtual std::string_view name() const = 0;
  // Of a module's parameters and buffers.
  virtual DType dtype() const = 0;
  // A floating tensor among the arguments of a forward, or among its outputs.
  virtual Tensor convert_input(const Tensor& x) const { return x.to(dtype()); }
  virtual Tensor convert_output(const Tensor& x) const { return x; }
  // Lives as long as a forward runs.
  virtual std::shared_ptr<void> forward_scope() const { return nullptr; }

  // Around an optimizer's life: set up; about to have its gradients read (clipping); to step. step: false if skipped.
  virtual void setup_optimizer([[maybe_unused]] OptimizerSync& optimizer) {}
  virtual void before_clip([[maybe_unused]] OptimizerSync& optimizer) {}
  virtual bool step(OptimizerSync& optimizer) {
    optimizer.step();
    return true;
  }
  // What is differentiated in place of `loss`.
  virtual Tensor before_backward(const Tensor& loss) { return loss; }

  // What every checkpoint keeps of it; nothing by default. On Error nothing has changed.
  virtual StateDict state_dict() const { return {}; }
  virtual void check_state_dict([[maybe_unused]] const StateDict& saved) const {}
  virtual void load_state_dict([[maybe_unused]] const StateDict& saved) {}
};

// Everything in one dtype: "32-true", "64-true".
class TruePrecision final : public Precision {
 public:
  TruePrecision(std::string_view name, DType dtype) : name_(name), dtype_(dtype) {}
  std::string_view name() const override { return name_; }
  DType dtype() const override { return dtype_; }

 private:
  std::string_view name_;  // of the table
  DType dtype_;
};

// By Fabric's name ("32-true", "64-true" or their aliases "32", "64"); throws Error with the list for any other.
std::shared_ptr<Precision> make_precision(std::string_view name);

}  // namespace loom
