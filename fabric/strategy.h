// How a module is spread over the ranks. A strategy sees parameters and buffers, not module types.
//
// To add a strategy: derive from Strategy and ModuleSync, and add a row to strategy.cpp's table (fabric/README.md).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <loom/autograd/parameter.h>
#include <loom/distributed/communicator.h>

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
  // Norm (of order p, may be infinite) of all gradients together, the same on every rank. grads: of one optimizer.
  virtual double grad_norm(std::span<const Tensor> grads, double p);
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual std::string_view name() const = 0;
  // Called once by all ranks together, after the module is on its device and in its precision.
  virtual std::unique_ptr<ModuleSync> setup_module(Communicator& world, std::vector<NamedTensor> parameters,
                                                   std::vector<NamedTensor> buffers) = 0;
};

// By name; throws Error with the list of names for an unknown one, and for one that does not fit the number of ranks.
std::shared_ptr<Strategy> make_strategy(std::string_view name, int world_size);
std::string strategy_names();  // "auto, single, ddp, ..."

}  // namespace loom
