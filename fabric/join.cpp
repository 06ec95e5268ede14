// fabric.join: uneven inputs.
#include <optional>

#include <loom/fabric/fabric.h>
#include <loom/fabric/state_broadcast.h>
#include <loom/tensor/context.h>

namespace loom {

namespace {

// What issues no collectives in the loop, but has to be alike on all ranks after it.
class KeptAlike : public Joinable {
 public:
  KeptAlike(Communicator& ranks, StateEntry entry) : ranks_(ranks), entry_(std::move(entry)) {}
  Communicator& join_communicator() const override { return ranks_; }
  bool joined() const override { return false; }
  void set_join(Join*) override {}
  void shadow(int) override {}
  void adopt(int rank) override { broadcast_state(ranks_, entry_, rank); }

 private:
  Communicator& ranks_;
  StateEntry entry_;
};

// Has its turn before the models', so that they take over gradients of one scale. Meanwhile steps share nothing: a rank
// that has run out takes none.
class AdoptingPrecision final : public KeptAlike {
 public:
  AdoptingPrecision(Communicator& ranks, StateEntry entry, Precision& precision, bool& joining)
      : KeptAlike(ranks, std::move(entry)), precision_(precision), joining_(joining) {}
  void set_join(Join* join) override { joining_ = join != nullptr; }
  void adopt(int rank) override {
    KeptAlike::adopt(rank);
    precision_.before_adoption();
  }

 private:
  Precision& precision_;
  bool& joining_;
};

// How far this rank's random numbers are: ranks that draw alike go on alike.
StateEntry random_entry() {
  return {[] {
            const Generator& g = context().generator;
            return StateDict({}, {{"seed", std::to_string(g.seed)}, {"offset", std::to_string(g.offset)}});
          },
          [](const StateDict& state, bool) {
            context().generator = {text_to_unsigned(state.value("seed")), text_to_unsigned(state.value("offset"))};
          }};
}

}  // namespace

Joined Fabric::join_modules(const std::vector<ModuleSync*>& modules, const std::function<void()>& loop,
                            const FabricJoinOptions& options) {
  require_launched("join");
  AdoptingPrecision precision(*communicator_, precision_entry(), *precision_, joining_);
  std::vector<Joinable*> all{&precision};
  for (ModuleSync* m : modules) {
    if (Joinable* const joinable = m->joinable())
      all.push_back(joinable);
    else
      check(world_size() == 1, "join: under the strategy '", strategy_->name(), "' ranks cannot run out of data");
  }
  if (all.size() == 1 || !options.enable) {
    loop();
    return {};
  }
  std::erase_if(optimizers_, [](const auto& o) { return o.expired(); });
  std::vector<std::shared_ptr<OptimizerSync>> optimizers;
  for (const auto& weak : optimizers_) all.push_back(optimizers.emplace_back(weak.lock()).get());
  std::vector<StateEntry> entries{steps_.entry(), random_entry()};
  for (const auto& named : options.state) entries.push_back(named.second);
  std::vector<std::unique_ptr<KeptAlike>> kept;
  for (const StateEntry& entry : entries)
    all.push_back(kept.emplace_back(std::make_unique<KeptAlike>(*communicator_, entry)).get());
  const Joined joined = loom::join(all, loop,
                                   {.divide_by_initial_world_size = options.divide_by_initial_world_size,
                                    .throw_on_early_termination = options.throw_on_early_termination});
  if (joined.uneven) precision_->after_adoption();
  precision_->share(*communicator_);
  return joined;
}

}  // namespace loom
