// What Fabric's setup functions return: light handles on a module, an optimizer or a loader of the user's.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/fabric/conversion.h>
#include <loom/fabric/precision.h>
#include <loom/fabric/strategy.h>
#include <loom/nn/module.h>
#include <loom/nn/module_range.h>

namespace loom {

class Fabric;

struct LoaderSetup {
  bool use_distributed_sampler = true;
  bool move_to_device = true;
  // On a GPU: batches are collated into pinned memory and copied one ahead (data::DataLoader::on_device). Else each is
  // copied when the loop comes to it.
  bool prefetch = true;
  // Evaluation: every sample exactly once, over all ranks; ranks that run out get empty batches.
  bool exact = false;
};

// Keeps gradients local for a scope.
class NoSync {
 public:
  NoSync(ModuleSync& sync, bool enabled)
      : sync_(enabled ? &sync : nullptr), previous_(enabled && sync.set_sync(false)) {}
  ~NoSync() {
    if (sync_) sync_->set_sync(previous_);
  }
  NoSync(const NoSync&) = delete;
  NoSync& operator=(const NoSync&) = delete;

 private:
  ModuleSync* sync_;
  bool previous_;
};

template <class M>
class FabricModule {
 public:
  FabricModule(Fabric& fabric, M& module, std::shared_ptr<ModuleSync> sync);

  // The module's forward, under the strategy and the precision. Containers and structs that hold tensors arrive as
  // const (conversion.h): one that the forward is to change goes in by std::ref or a pointer, which are passed on as
  // they are.
  template <class... Args>
  auto operator()(Args&&... args) const {
    return run([this](auto&&... converted) { return (*module_)(std::forward<decltype(converted)>(converted)...); },
               std::forward<Args>(args)...);
  }
  // The same for another method: model.call(&Net::generate, x).
  template <class Method, class... Args>
  auto call(Method method, Args&&... args) const {
    return run(
        [&](auto&&... converted) {
          return std::invoke(method, *module_, std::forward<decltype(converted)>(converted)...);
        },
        std::forward<Args>(args)...);
  }

  M& module() const { return *module_; }
  M* operator->() const { return module_; }
  ModuleSync& sync() const { return *sync_; }
  M& fabric_wrapped() const { return *module_; }
  StateEntry state_entry() const { return sync_->state_entry(StateEntry(*module_)); }

  // A wrapped module is a module: parameters(model), train(model), state_dict(model), without any prefix.
  template <class Visitor>
  void members(Visitor&& visitor) {
    module_->members(visitor);
  }
  template <class Visitor>
  void members(Visitor&& visitor) const {
    std::as_const(*module_).members(visitor);
  }

 private:
  template <class F, class... Args>
  auto run(const F& f, Args&&... args) const {
    const nn::ModuleNames names(*module_);
    const nn::ModuleRange range(*module_);
    sync_->before_forward(nn::is_training(*module_));
    const auto forward = [&] {
      const auto scope = precision_->forward_scope();
      return f(ConvertedArgument<Args>(std::forward<Args>(args), *precision_).get()...);
    };
    std::vector<Tensor> outputs;
    if constexpr (std::is_void_v<decltype(forward())>) {
      forward();
      sync_->after_forward(outputs, false);
    } else {
      ConvertedResult<decltype(forward())> result = forward();
      const bool all_found = convert_result(result, *precision_, outputs);
      sync_->after_forward(outputs, all_found);
      if (precision_->needs_backward()) watch(outputs);
      return result;
    }
  }

  // loss.backward() would leave gradients unscaled that the step unscales.
  void watch(const std::vector<Tensor>& outputs) const {
    for (const Tensor& y : outputs) {
      if (!y.requires_grad() || y.is_leaf()) continue;  // a parameter that is returned as it is outlives the forward
      y.register_hook([inside = inside_backward_, name = std::string(precision_->name())](const Tensor&) {
        check(*inside, "the precision '", name, "' requires fabric.backward(loss) instead of loss.backward(), which ",
              "does not scale the loss");
        return std::optional<Tensor>();
      });
    }
  }

  M* module_;
  std::shared_ptr<ModuleSync> sync_;
  const Precision* precision_;
  std::shared_ptr<const bool> inside_backward_;
};

// Each step through this handle counts in global_step(): one for every optimizer that steps (a GAN's two count twice
// an iteration), none for a step made past it (optimizer().step()), nor under accumulation, where there is no step.
template <std::derived_from<optim::Optimizer> O>
class FabricOptimizer {
 public:
  FabricOptimizer(Fabric& fabric, O& optimizer);

  // False: the precision skipped the step. Where a GPU decides, asking waits for it.
  optim::StepOutcome step();
  // Runs closure, which computes the gradients and returns the loss, and steps.
  template <class Closure>
  auto step(Closure&& closure) {
    const EnableGrad enable;
    auto loss = closure();
    step();
    return loss;
  }
  void zero_grad(bool set_to_none = true);
  O& optimizer() const { return *optimizer_; }
  O* operator->() const { return optimizer_; }
  O& fabric_wrapped() const { return *optimizer_; }
  OptimizerSync& sync() const { return *sync_; }
  StateEntry state_entry() const { return sync_->state_entry(StateEntry(*optimizer_)); }

 private:
  Fabric* fabric_;
  O* optimizer_;
  std::shared_ptr<OptimizerSync> sync_;
};

template <class L>
class FabricDataLoader {
 public:
  FabricDataLoader(Fabric& fabric, const L& loader, const LoaderSetup& setup);

  auto begin() { return loader_->begin(); }
  auto end() { return loader_->end(); }
  int64_t size() const { return loader_->size(); }  // batches a rank
  const auto& dataset() const { return loader_->dataset(); }
  auto state() const { return loader_->state(); }
  void set_epoch(int64_t epoch) { loader_->set_epoch(epoch); }
  L& loader() const { return *loader_; }
  L& fabric_wrapped() const { return *loader_; }

 private:
  std::shared_ptr<L> loader_;
};

template <class T>
inline constexpr bool is_fabric_wrapper = requires(T& t) { t.fabric_wrapped(); };

}  // namespace loom
