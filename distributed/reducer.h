// Averages gradients over ranks while backward is still computing others.
//
// A backward is synchronised when it comes from a synchronised forward: hooks on the forwards' outputs tell; one that
// comes to no output (a loss kept in a member) belongs to the last forward. Each gradient that becomes ready is counted
// in its bucket; full buckets are reduced in the order of their numbers, which is the same on all ranks, whatever the
// order of readiness. When backward ends, all reductions are waited for; on a GPU, by the stream that backward runs in.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <loom/distributed/communicator.h>
#include <loom/distributed/ddp_options.h>
#include <loom/distributed/gradient_buckets.h>
#include <loom/distributed/join.h>
#include <loom/distributed/unused_parameters.h>

namespace loom {

class Reducer : public std::enable_shared_from_this<Reducer> {
 public:
  // Leaves that require grad, each once. The communicator outlives the reducer.
  Reducer(Communicator& communicator, std::vector<NamedTensor> parameters, const DdpOptions& options);
  ~Reducer();
  Reducer(const Reducer&) = delete;
  Reducer& operator=(const Reducer&) = delete;
  void watch();  // sets the hooks; once, right after construction
  // How gradients are averaged from now on. Throws Error where a hook has been given already. Collective.
  void register_comm_hook(std::shared_ptr<CommHook> hook);

  // Before a forward that will be synchronised: throws if the last reduction is incomplete. Whether the buckets are due
  // to be rebuilt in the order in which gradients became ready.
  bool before_forward();
  void rebuild(int root);  // its order counts. Once. Collective
  // After any forward that records. `all_found`: the outputs are all that its result holds.
  void after_forward(std::span<const Tensor> outputs, bool all_found, bool synced);

  // A backward announces its reduction to the join (null: none).
  static constexpr int backward_event = 8;
  void set_join(Join* join, const Joinable* model) {
    join_ = join;
    joinable_ = model;
  }
  // The part of a rank without data in a backward of the others: zeros; .grad is the mean.
  void shadow_backward();
  // A rank that missed the others' last steps takes over the root's gradients; one that did not may have accumulated
  // some of its own. Collective.
  void adopt_gradients(int root, bool takes);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }

  DdpStatistics statistics;

 private:
  enum class State : uint8_t { idle, counting, incomplete };

  std::vector<std::vector<int>> assign(std::span<const int64_t> limits, std::span<const int> order) const;
  void use_hook(std::shared_ptr<CommHook> hook);
  bool tracks_use() const { return options_.static_graph || options_.find_unused_parameters; }
  bool untracked_forward() const {  // nothing was reached, but the last forward wants to be synchronised
    return reached_.empty() && !reached_unsynced_ && last_ && last_->synced && !last_->differentiated;
  }
  bool first_of_static() const { return options_.static_graph && !counted_; }

  // One backward, in the order of events.
  void follow_backward();  // this run of the engine is now known here
  void reach_output(const std::shared_ptr<ForwardPass>& forward);
  void before_gradient(int parameter);
  void gradient_ready(int parameter);
  void start_counting();
  void mark_unused();
  void count_early();
  void count(int parameter);
  void mark_ready(int parameter, bool used);
  void launch(int bucket);
  void end_backward();
  void mark_missing();
  void finish();
  void complete_exchanges();
  void follow_join();
  void share_gradient_scale();
  void complete_order();
  void abandon();  // what an exception in backward left behind
  void warn_if_all_used(const ForwardPass& forward);

  std::string unfinished() const;
  std::string ready_twice(int parameter) const;

  Communicator& communicator_;
  const DdpOptions options_;
  const std::vector<NamedTensor> parameters_;
  const LeafFinder leaves_;
  std::vector<uint64_t> before_, ready_hooks_;  // hooks, by parameter
  std::optional<GradientBuckets> buckets_;
  std::shared_ptr<CommHook> hook_;
  std::shared_ptr<void> hook_claim_;
  bool hook_given_ = false;  // by the user
  Join* join_ = nullptr;
  const Joinable* joinable_ = nullptr;
  bool rebuilds_;  // still to do
  bool warned_ = false;

  std::weak_ptr<void> run_;  // alive while the followed backward runs
  PendingForwards pending_;
  std::shared_ptr<ForwardPass> last_;                  // forward
  std::vector<std::shared_ptr<ForwardPass>> reached_;  // synchronised forwards that this backward came to
  bool reached_unsynced_ = false;
  std::vector<int> early_;  // ready before an output was reached

  State state_ = State::idle;
  std::vector<bool> ready_;
  size_t ready_count_ = 0;
  size_t next_launch_ = 0;
  ParameterUse use_;
  std::vector<int> order_;  // of readiness

  bool counted_ = false;      // static graph: `firings_` is known
  std::vector<int> firings_;  // how often each parameter's gradient becomes ready
  std::vector<int> still_to_come_;
};

}  // namespace loom
