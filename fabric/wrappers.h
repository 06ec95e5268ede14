// What Fabric's setup functions return: light handles on a module, an optimizer or a loader of the user's.
#pragma once

#include <array>
#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/data/collate.h>
#include <loom/distributed/ddp_outputs.h>
#include <loom/fabric/precision.h>
#include <loom/fabric/strategy.h>
#include <loom/nn/module.h>

namespace loom {

class Fabric;

struct LoaderSetup {
  bool use_distributed_sampler = true;
  bool move_to_device = true;
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

namespace wrapper_detail {

template <class T>
inline constexpr bool holds_tensors = std::is_base_of_v<Tensor, T>;
template <class T>
inline constexpr bool holds_tensors<std::vector<T>> = holds_tensors<T>;
template <class T, size_t n>
inline constexpr bool holds_tensors<std::array<T, n>> = holds_tensors<T>;
template <class... T>
inline constexpr bool holds_tensors<std::tuple<T...>> = (holds_tensors<T> || ...);
template <class A, class B>
inline constexpr bool holds_tensors<std::pair<A, B>> = holds_tensors<A> || holds_tensors<B>;

// A value with its floating tensors converted; what holds no tensors is passed on as it is.
template <class T>
decltype(auto) converted(T&& value, const Precision& precision, Tensor (Precision::*conversion)(const Tensor&) const) {
  using Plain = std::remove_cvref_t<T>;
  const auto convert = [&](const Tensor& x) {
    return x.defined() && is_floating(x.dtype()) ? (precision.*conversion)(x) : x;
  };
  if constexpr (std::is_base_of_v<Tensor, Plain>)
    return Tensor(convert(value));
  else if constexpr (holds_tensors<Plain>)
    return data::map_tensors(convert, Plain(std::forward<T>(value)));
  else
    return std::forward<T>(value);
}

}  // namespace wrapper_detail

template <class M>
class FabricModule {
 public:
  FabricModule(Fabric& fabric, M& module, std::shared_ptr<ModuleSync> sync);

  // The module's forward, under the strategy and the precision.
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
    sync_->before_forward(nn::is_training(*module_));
    const auto forward = [&] {
      const auto scope = precision_->forward_scope();
      return f(wrapper_detail::converted(std::forward<Args>(args), *precision_, &Precision::convert_input)...);
    };
    std::vector<Tensor> outputs;
    if constexpr (std::is_void_v<decltype(forward())>) {
      forward();
      sync_->after_forward(outputs, false);
    } else {
      auto result = wrapper_detail::converted(forward(), *precision_, &Precision::convert_output);
      const bool all_found = detail::find_tensors(result, outputs);
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

  // False: the precision skipped the step.
  bool step();
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
