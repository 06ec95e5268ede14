// Fabric: a plain training loop on any device, any number of ranks, any precision.
//
//   Fabric fabric({.devices = 2});
//   return fabric.launch(argc, argv, [&] {
//     auto [model, optimizer] = fabric.setup(net, adamw);
//     auto loader = fabric.setup_dataloaders(data::DataLoader(dataset, {.batch_size = 64, .shuffle = true}));
//     for (auto [x, y] : loader) {
//       optimizer.zero_grad();
//       fabric.backward(cross_entropy(model(x), y));
//       optimizer.step();
//     }
//   });
//
// Names and meaning are Lightning Fabric's; docs/fabric.md lists the differences row by row.
#pragma once

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/accelerators/device.h>
#include <loom/distributed/communicator.h>
#include <loom/fabric/agreement.h>
#include <loom/fabric/callback.h>
#include <loom/fabric/clip.h>
#include <loom/fabric/join.h>
#include <loom/fabric/logger.h>
#include <loom/fabric/options.h>
#include <loom/fabric/precision.h>
#include <loom/fabric/state.h>
#include <loom/fabric/step_count.h>
#include <loom/fabric/strategy.h>
#include <loom/fabric/wrappers.h>
#include <loom/nn/module.h>

namespace loom {

class Fabric {
 public:
  // Checks nothing and starts nothing: launch does.
  explicit Fabric(FabricOptions options = {});
  ~Fabric();
  Fabric(const Fabric&) = delete;
  Fabric& operator=(const Fabric&) = delete;

  // Joins the launcher's ranks, or, alone with devices > 1, starts the program again under mpirun; then runs f. Returns
  // the program's exit code: 0, or 1 after printing "[rank N] what went wrong" and ending the other ranks.
  int launch(int argc, char** argv, const std::function<void()>& f);
  // The same for programs that handle errors themselves: exceptions of f pass through.
  void launch(const std::function<void()>& f = [] {});

  int world_size() const { return communicator_ ? communicator_->size() : 1; }
  int global_rank() const { return communicator_ ? communicator_->rank() : 0; }
  int local_rank() const { return local_rank_; }
  int node_rank() const { return node_rank_; }
  bool is_global_zero() const { return global_rank() == 0; }
  Device device() const { return device_; }
  Precision& precision();
  Strategy& strategy();
  Communicator& communicator() { return ranks("communicator"); }  // all ranks
  const FabricOptions& options() const { return options_; }

  // Places the module (in place) and spreads it; net and optimizers outlive what is returned.
  // One module: the wrapped module. With optimizers: a tuple (model, optimizers...).
  template <nn::Module M>
  FabricModule<M> setup(M& module) {
    FabricModule<M> wrapped = setup_module(module);
    after_setup();
    return wrapped;
  }
  template <nn::Module M, class... Optimizers>
    requires(sizeof...(Optimizers) > 0)
  std::tuple<FabricModule<M>, FabricOptimizer<Optimizers>...> setup(M& module, Optimizers&... optimizers) {
    std::tuple<FabricModule<M>, FabricOptimizer<Optimizers>...> wrapped{
        setup_module(module), FabricOptimizer<Optimizers>(*this, optimizers)...};  // braces: in this order
    after_setup();
    return wrapped;
  }
  template <nn::Module M>
  FabricModule<M> setup_module(M& module, bool move_to_device = true) {
    static_assert(!is_fabric_wrapper<M>, "a module is passed to setup only once");
    return FabricModule<M>(*this, module, place(nn::parameters(module), nn::buffers(module), move_to_device));
  }
  template <class Optimizer>
  FabricOptimizer<Optimizer> setup_optimizers(Optimizer& optimizer) {
    require_launched("setup_optimizers");
    return FabricOptimizer<Optimizer>(*this, optimizer);
  }
  template <class... Optimizers>
    requires(sizeof...(Optimizers) > 1)
  std::tuple<FabricOptimizer<Optimizers>...> setup_optimizers(Optimizers&... optimizers) {
    require_launched("setup_optimizers");
    return {FabricOptimizer<Optimizers>(*this, optimizers)...};
  }
  // Shards the loader over the ranks (in rank 0's order) and moves its batches to the device. Its position belongs to
  // every checkpoint. Collective; ranks whose loaders are over other samples raise the same error.
  template <class Loader>
  FabricDataLoader<Loader> setup_dataloaders(const Loader& loader, const LoaderSetup& setup = {}) {
    static_assert(!is_fabric_wrapper<Loader>, "a loader is passed to setup_dataloaders only once");
    require_launched("setup_dataloaders");
    return FabricDataLoader<Loader>(*this, loader, setup);
  }
  template <class... Loaders>
    requires(sizeof...(Loaders) > 1 && (!std::is_same_v<Loaders, LoaderSetup> && ...))
  std::tuple<FabricDataLoader<Loaders>...> setup_dataloaders(const Loaders&... loaders) {
    return {setup_dataloaders(loaders)...};
  }

  // d loss / d parameters, under the strategy and the precision.
  void backward(const Tensor& loss, const Tensor& gradient = {}, bool retain_graph = false, bool create_graph = false);
  // Clips the gradients of the optimizer's parameters; the norm before (one f64; 0 for clip_val). Does not wait for a
  // GPU: an error comes when the host next waits.
  template <nn::Module M, class Optimizer>
  Tensor clip_gradients(const FabricModule<M>& module, const FabricOptimizer<Optimizer>& optimizer,
                        const ClipOptions& options) {
    static_cast<void>(module);  // Lightning's argument; the optimizer knows its gradients
    return clip(optimizer.sync(), options);
  }
  // What the precision does to ops in a forward, for a scope of code outside of one:
  //   { const auto scope = fabric.autocast();  loss = criterion(output, y); }
  [[nodiscard]] std::shared_ptr<void> autocast() {
    require_launched("autocast");
    return precision_->forward_scope();
  }
  // In their scopes tensors, and the parameters of modules, are made on the device and in the precision's dtype;
  // empty_init: without running the initialisers.
  [[nodiscard]] InitScope init_tensor() const {
    require_launched("init_tensor");
    return {precision_->dtype(), device_, false};
  }
  [[nodiscard]] InitScope init_module(bool empty_init = false) const {
    require_launched("init_module");
    return {precision_->dtype(), device_, empty_init};
  }
  // In its scope forwards of this module leave their gradients local (accumulation).
  template <nn::Module M>
  [[nodiscard]] NoSync no_backward_sync(const FabricModule<M>& module, bool enabled = true) {
    return NoSync(module.sync(), enabled);
  }

  // Runs the loop on ranks that may have different numbers of batches (join.h). Several models: std::tie(a, b).
  template <nn::Module M>
  Joined join(const FabricModule<M>& module, const std::function<void()>& loop, const FabricJoinOptions& options = {}) {
    return join_modules({&module.sync()}, loop, options);
  }
  template <nn::Module... M>
  Joined join(const std::tuple<FabricModule<M>&...>& modules, const std::function<void()>& loop,
              const FabricJoinOptions& options = {}) {
    return std::apply([&](const auto&... m) { return join_modules({&m.sync()...}, loop, options); }, modules);
  }

  // Collectives over all ranks. all_reduce: "mean", "sum", "min", "max", "product"; the argument is left as it is.
  Tensor all_reduce(const Tensor& x, std::string_view reduce_op = "mean");
  double all_reduce(double x, std::string_view reduce_op = "mean");
  // [world_size, shape...], also for one rank; shapes must agree.
  Tensor all_gather(const Tensor& x);
  // One tensor a rank; extents of dimension 0 may differ.
  std::vector<Tensor> all_gather_ragged(const Tensor& x);
  Tensor broadcast(const Tensor& x, int src = 0);  // receivers may pass an undefined tensor
  std::string broadcast(const std::string& text, int src = 0);
  template <class T>
    requires std::is_arithmetic_v<T>
  T broadcast(T value, int src = 0) {
    const std::string bytes = broadcast(std::string(reinterpret_cast<const char*>(&value), sizeof(T)), src);
    check(bytes.size() == sizeof(T), "broadcast: rank ", src, " sent ", bytes.size(), " bytes, this rank expects a ",
          "number of ", sizeof(T));
    T out;
    std::copy_n(bytes.data(), sizeof(T), reinterpret_cast<char*>(&out));
    return out;
  }
  void barrier();
  // Runs f on rank 0 (local: on every node's first rank) before the others. An error on one rank is raised on all.
  void rank_zero_first(const std::function<void()>& f, bool local = false);
  // Prints the texts of its arguments on the first rank of every node, with a line end.
  template <class... Args>
  void print(const Args&... args) {
    if (local_rank_ == 0) print_line(str(args...));
  }

  Tensor to_device(const Tensor& x) const { return x.to(device_); }
  template <nn::Module M>
  M& to_device(M& module) const {
    nn::to(module, device_);
    return module;
  }

  // All ranks call; rank 0 writes one file, atomically: a failure leaves the file that was there. Random state,
  // positions of the data loaders that were set up and the step are always saved. Errors are raised on every rank.
  // Gradients are not: save after a step (in the middle of an accumulation it warns: what is resumed lacks them).
  void save(const std::filesystem::path& path, const State& state);
  // Restores in place what `state` refers to; returns the names of entries that the file has and `state` has not.
  // strict: an entry of `state` that the file lacks is an error.
  std::vector<std::string> load(const std::filesystem::path& path, const State& state, bool strict = true);
  // A file that holds one module's (or optimizer's) state by itself, as PyTorch's safetensors do.
  void load_raw(const std::filesystem::path& path, const StateEntry& entry, bool strict = true);

  // The same seed on every rank; see manual_seed. Returns it.
  static uint64_t seed_everything(uint64_t seed);

  // Calls a member function on every callback whose type has it: fabric.call(&Early::on_epoch_end, epoch).
  template <class Hook, class C, class... Args>
  void call(Hook C::*hook, Args&&... args) {
    for (const auto& callback : options_.callbacks)
      if (C* const target = dynamic_cast<C*>(callback.get())) (target->*hook)(args...);
  }
  void log(const std::string& name, double value, std::optional<int64_t> step = {});
  void log(const std::string& name, const Tensor& value, std::optional<int64_t> step = {});  // one element
  void log_dict(const Metrics& metrics, std::optional<int64_t> step = {});

  // Steps of this Fabric's optimizers so far, all together; saved and restored. Waits for a GPU that has decided on
  // steps since (loss scaling).
  int64_t global_step() const { return steps_.value(); }

 private:
  template <class M>
  friend class FabricModule;
  template <std::derived_from<optim::Optimizer> O>
  friend class FabricOptimizer;
  template <class L>
  friend class FabricDataLoader;

  void join_ranks();
  void require_launched(const char* what) const;
  Communicator& ranks(const char* what) const;  // for `what`, which needs a launched Fabric
  std::shared_ptr<ModuleSync> place(std::vector<NamedTensor> parameters, std::vector<NamedTensor> buffers, bool move);
  std::shared_ptr<OptimizerSync> setup_sync(optim::Optimizer& optimizer);
  Joined join_modules(const std::vector<ModuleSync*>& modules, const std::function<void()>& loop,
                      const FabricJoinOptions& options);
  StateEntry precision_entry() const;
  void warn_of_gradients();  // that a checkpoint would lack
  optim::StepOutcome step(OptimizerSync& optimizer);
  void zero_grad(OptimizerSync& optimizer, bool set_to_none);
  Tensor clip(OptimizerSync& optimizer, const ClipOptions& options);
  void after_setup();
  static void print_line(const std::string& line);
  void note_loader(std::weak_ptr<void> loader, StateEntry position);
  State with_own_state(State state);
  void lock_directory(const std::filesystem::path& path);

  FabricOptions options_;
  std::shared_ptr<Communicator> communicator_;
  std::shared_ptr<Strategy> strategy_;
  std::shared_ptr<Precision> precision_;
  std::shared_ptr<const bool> alive_ = std::make_shared<bool>(true);       // for graphs that may outlive it
  std::shared_ptr<bool> inside_backward_ = std::make_shared<bool>(false);  // for what a module's outputs may outlive
  Device device_;
  int local_rank_ = 0, node_rank_ = 0;
  StepCount steps_;
  int64_t steps_at_backward_ = -1;  // of the optimizers
  bool warned_of_gradients_ = false, joining_ = false;
  std::vector<std::pair<std::weak_ptr<void>, StateEntry>> loaders_;  // positions of those that are still in use
  std::vector<std::weak_ptr<OptimizerSync>> optimizers_;             // that are still in use
  std::vector<std::shared_ptr<class DirectoryLock>> locks_;
};

template <class M>
FabricModule<M>::FabricModule(Fabric& fabric, M& module, std::shared_ptr<ModuleSync> sync)
    : module_(&module),
      sync_(std::move(sync)),
      precision_(&fabric.precision()),
      inside_backward_(fabric.inside_backward_) {}

template <std::derived_from<optim::Optimizer> O>
FabricOptimizer<O>::FabricOptimizer(Fabric& fabric, O& optimizer)
    : fabric_(&fabric), optimizer_(&optimizer), sync_(fabric.setup_sync(optimizer)) {}

template <std::derived_from<optim::Optimizer> O>
void FabricOptimizer<O>::zero_grad(bool set_to_none) {
  fabric_->zero_grad(*sync_, set_to_none);
}

template <std::derived_from<optim::Optimizer> O>
optim::StepOutcome FabricOptimizer<O>::step() {
  return fabric_->step(*sync_);
}

template <class L>
FabricDataLoader<L>::FabricDataLoader(Fabric& fabric, const L& loader, const LoaderSetup& setup) {
  loader_ = std::make_shared<L>(loader);
  const DataShare share = fabric.strategy().data_share(fabric.communicator());
  if (setup.use_distributed_sampler && fabric.world_size() > 1) {
    check_same_on_ranks(fabric.communicator(), "setup_dataloaders: the ranks' loaders differ", loader.describe());
    const uint64_t seed = fabric.broadcast(loader.state().seed);  // the ranks' shares are shares of one order
    if (share.replicas > 1) *loader_ = loader.distributed(share.replicas, share.index, seed, setup.exact);
  }
  if (setup.move_to_device) *loader_ = loader_->on_device(fabric.device(), setup.prefetch);
  fabric.note_loader(loader_, StateEntry(*loader_));
}

// The same on every rank: one seed for initialisation and shuffling; dropout differs by rank. Returns the seed.
uint64_t seed_everything(uint64_t seed);

}  // namespace loom
