// How modules and optimizers are spread over the ranks. A strategy sees parameters, buffers and optimizers, not module
// types. Every hook has a default, right where each rank holds everything whole.
//
// To add a strategy: derive from Strategy and from what it has to say (ModuleSync, OptimizerSync), and add a row to
// strategy.cpp's table (fabric/README.md).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <loom/autograd/parameter.h>
#include <loom/distributed/communicator.h>
#include <loom/distributed/join.h>
#include <loom/fabric/state.h>
#include <loom/nn/module.h>
#include <loom/nn/optim/optimizer.h>

namespace loom {

// What a strategy does for one module: around every forward, and with its gradients.
class ModuleSync {
 public:
  virtual ~ModuleSync() = default;
  // training: the module is in training mode. A forward in eval mode issues no collectives: one rank may make it alone.
  virtual void before_forward([[maybe_unused]] bool training) {}
  // outputs: the tensors that the forward returned; all_found: there were no parts that could not be looked into.
  virtual void after_forward([[maybe_unused]] const std::vector<Tensor>& outputs, [[maybe_unused]] bool all_found) {}
  // Whether gradients of the forwards from now on are synchronised in their backward; returns what it was.
  virtual bool set_sync([[maybe_unused]] bool enabled) { return true; }
  // How a checkpoint reads and writes the module. `held`: what this rank holds; the result speaks of whole tensors.
  virtual StateEntry state_entry(StateEntry held) { return held; }
  // What takes part in fabric.join; null: ranks cannot run out of data, or there is but one.
  virtual Joinable* joinable() { return nullptr; }
};

// What a strategy does for one optimizer. Collective where it says so: all ranks call in the same order. In a join,
// ranks without data follow agree, and take over the state at the end.
class OptimizerSync : public Joinable {
 public:
  // Both outlive this.
  OptimizerSync(Communicator& world, optim::Optimizer& optimizer) : world_(&world), optimizer_(&optimizer) {}
  ~OptimizerSync() override = default;
  OptimizerSync(const OptimizerSync&) = delete;
  OptimizerSync& operator=(const OptimizerSync&) = delete;

  optim::Optimizer& optimizer() const { return *optimizer_; }
  // The gradients that this rank will step with, of all parameters that have one; written in place by clipping and
  // unscaling.
  virtual std::vector<Tensor> gradients() const;
  // Norm (of order p, may be infinite) of all gradients together, the same on every rank: one f64. Collective.
  virtual Tensor grad_norm(double p) const;
  // Makes a finding (1 or 0, one f32) true where it is on any rank that shares this optimizer's work. Collective.
  virtual void agree(const Tensor& found) const;
  // Steps with the gradients that are there, unless `found` (one f32, agreed on; undefined: 0) is not 0. Collective. On
  // a GPU the device decides, and the host does not wait.
  virtual optim::StepOutcome step(const Tensor& found);
  // How a checkpoint reads and writes the optimizer's state, as ModuleSync::state_entry.
  virtual StateEntry state_entry(StateEntry held) { return held; }

  Communicator& join_communicator() const override { return *world_; }
  bool joined() const override { return join_ != nullptr; }
  void set_join(Join* join) override { join_ = join; }
  void shadow(int event) override;
  void adopt(int rank) override;

 protected:
  Communicator& world() const { return *world_; }

 private:
  Communicator* world_;
  optim::Optimizer* optimizer_;
  Join* join_ = nullptr;
};

// This rank's part of the samples.
struct DataShare {
  int replicas = 1, index = 0;
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual std::string_view name() const = 0;
  // Which ranks read which samples; ranks that hold parts of one replica share an index. Dropout differs by it too.
  virtual DataShare data_share(const Communicator& world) const { return {world.size(), world.rank()}; }
  // Brings a module's tensors, in place, to the target's dtype (floating ones) and device.
  virtual void place(const std::vector<NamedTensor>& tensors, const TensorOptions& target) {
    nn::convert_state(tensors, target);
  }
  // Called once by all ranks together, after the module is on its device and in its precision.
  virtual std::unique_ptr<ModuleSync> setup_module(Communicator& world, std::vector<NamedTensor> parameters,
                                                   std::vector<NamedTensor> buffers) = 0;
  // The same for an optimizer; of parameters that were set up before it, after it, or not at all.
  virtual std::unique_ptr<OptimizerSync> setup_optimizer(Communicator& world, optim::Optimizer& optimizer);
  // Of the backward pass that follows (CommHook::set_gradient_scale), where losses are scaled; taken back, undefined,
  // after it.
  virtual void set_gradient_scale([[maybe_unused]] const Tensor& scale) {}
  // Runs the backward pass.
  virtual void backward(const std::function<void()>& run) { run(); }
};

// By name; throws Error with the list of names for an unknown one, and for one that does not fit the number of ranks.
std::shared_ptr<Strategy> make_strategy(std::string_view name, int world_size);
std::string strategy_names();  // "auto, single, ddp, ..."

}  // namespace loom
