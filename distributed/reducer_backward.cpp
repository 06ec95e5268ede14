// The reducer during one backward.
#include <algorithm>
#include <numeric>
#include <utility>

#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>
#include <loom/distributed/coalesced.h>
#include <loom/distributed/reducer.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

// The engine drops its callbacks when an exception ends a backward, and the token with them.
void Reducer::follow_backward() {
  if (!run_.expired()) return;
  if (state_ == State::counting) abandon();
  reached_.clear();
  reached_unsynced_ = false;
  early_.clear();
  const auto token = std::make_shared<char>();
  run_ = token;
  on_backward_end([reducer = weak_from_this(), token] {
    if (const auto self = reducer.lock()) self->end_backward();
  });
}

// Nothing is counted before a leaf has got its gradient: grad(), which leaves .grad alone, passes here as well.
void Reducer::reach_output(const std::shared_ptr<ForwardPass>& forward) {
  follow_backward();
  if (forward->synced)
    reached_.push_back(forward);
  else
    reached_unsynced_ = true;
  count_early();
}

// A parameter that gets a gradient again while its bucket is on its way, as it should not: nothing writes there now.
void Reducer::before_gradient(int parameter) { buckets_->of(parameter).exchange.work.wait(); }

void Reducer::gradient_ready(int parameter) {
  follow_backward();
  statistics.last_ready = DdpStatistics::now();
  if (untracked_forward() && !last_->outputs_known) reached_.push_back(last_);
  early_.push_back(parameter);
  count_early();
}

void Reducer::count_early() {
  if (reached_.empty() || early_.empty()) return;
  if (join_ && state_ == State::idle) join_->announce(*joinable_, backward_event);
  start_counting();
  for (const int parameter : std::exchange(early_, {})) count(parameter);
}

void Reducer::start_counting() {
  if (state_ == State::counting) return;
  if (std::exchange(state_, State::counting) == State::incomplete) return;  // goes on with what is missing
  if (join_ && hook_->keeps_state()) share_gradient_scale();
  statistics.backward_start = DdpStatistics::now();
  statistics.launches.clear();
  ready_.assign(parameters_.size(), false);
  ready_count_ = next_launch_ = 0;
  order_.clear();
  for (ReducedBucket& b : buckets_->buckets) b.pending = static_cast<int>(b.parameters.size());
  if (!options_.static_graph) use_.clear();
  if (first_of_static()) {
    std::ranges::fill(firings_, 0);
    use_.clear();
    return;
  }
  still_to_come_ = firings_;
  mark_unused();
}

// Those that this backward will surely not come to are ready from the start.
void Reducer::mark_unused() {
  if (!tracks_use()) return;
  std::vector<bool> unused(parameters_.size());
  if (options_.static_graph)
    for (size_t i = 0; i < unused.size(); ++i) unused[i] = firings_[i] == 0;
  else
    unused = pending_.surely_unused(reached_, parameters_.size());
  for (const int p : early_) unused[static_cast<size_t>(p)] = false;  // by a loss that forward did not return
  for (size_t i = 0; i < unused.size(); ++i)
    if (unused[i]) mark_ready(static_cast<int>(i), false);
}

void Reducer::count(int parameter) {
  const auto at = static_cast<size_t>(parameter);
  if (first_of_static()) {
    if (firings_[at]++ > 0) std::erase(order_, parameter);  // its last time counts
    order_.push_back(parameter);
    return use_.note(parameter);
  }
  if (options_.static_graph) {
    check(
        still_to_come_[at] > 0, "Your training graph has changed in this iteration, e.g., one parameter is unused in ",
        "first iteration, but then got used in the second iteration. this is not compatible with static_graph set to ",
        "True. Parameter at index ", parameter, " with name ", parameters_[at].name, " has become ready ",
        firings_[at] + 1, " times, in the first iteration ", firings_[at], '.');
    if (--still_to_come_[at] > 0) return;
  } else {
    use_.note(parameter);
  }
  if (ready_[at]) fail(ready_twice(parameter));
  order_.push_back(parameter);
  mark_ready(parameter, true);
}

void Reducer::mark_ready(int parameter, bool used) {
  ready_[static_cast<size_t>(parameter)] = true;
  ++ready_count_;
  buckets_->fill(parameter, used);
  --buckets_->of(parameter).pending;
  auto& buckets = buckets_->buckets;
  if (buckets.size() == next_launch_) return;
  while (next_launch_ < buckets.size() && buckets[next_launch_].pending == 0) launch(static_cast<int>(next_launch_++));
  if (next_launch_ == buckets.size() && options_.find_unused_parameters && !options_.static_graph)
    use_.exchange(communicator_);
}

void Reducer::launch(int bucket) {
  ReducedBucket& b = buckets_->buckets[static_cast<size_t>(bucket)];
  statistics.launches.push_back({bucket, DdpStatistics::now(), {}});
  const NoGrad off;
  b.exchange = hook_->start(communicator_, b.content);
}

void Reducer::end_backward() {
  if (untracked_forward()) reached_.push_back(last_);
  count_early();
  run_.reset();
  early_.clear();
  const auto reached = std::exchange(reached_, {});
  if (state_ != State::counting) return;
  for (const auto& forward : reached) forward->differentiated = true;
  statistics.backward_end = DdpStatistics::now();
  mark_missing();
  if (ready_count_ == parameters_.size())
    finish();
  else
    state_ = State::incomplete;
}

// Those that this backward could have come to, but did not: an output may be left out of the loss.
void Reducer::mark_missing() {
  const bool first = first_of_static();
  if (!first && (options_.static_graph || !options_.find_unused_parameters)) return;
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (const int p = static_cast<int>(i); !ready_[i]) mark_ready(p, use_.here(p));
  if (first) use_.exchange(communicator_);
}

void Reducer::finish() {
  complete_exchanges();
  use_.finish();
  if (join_) follow_join();
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (const int p = static_cast<int>(i); !tracks_use() || use_.anywhere(p)) buckets_->publish(p);
  if (rebuilds_) complete_order();
  counted_ = true;
  state_ = State::idle;
  ++statistics.iterations;
  statistics.ready_order = order_;
  statistics.unused_parameters = tracks_use() ? use_.unused_here() : 0;
}

// Leg by leg through all buckets: what one bucket has on its way, another uses for its computation. On a GPU nobody
// waits on the host: what comes next is put into the stream.
void Reducer::complete_exchanges() {
  const NoGrad off;
  std::vector<size_t> open(buckets_->buckets.size());
  std::iota(open.begin(), open.end(), size_t{0});
  const auto advance = [&](size_t i) {
    ReducedBucket& b = buckets_->buckets[i];
    b.exchange.work.wait();
    if (const auto then = std::exchange(b.exchange.then, {})) {
      b.exchange = then();
      return false;
    }
    b.exchange = {};
    b.content.buffer.storage()->bump_version();
    statistics.launches[i].finished = DdpStatistics::now();
    return true;
  };
  while (!open.empty()) std::erase_if(open, advance);
}

// What is different where some ranks have run out of data: what the mean is divided by, and how such a rank knows of a
// static graph.
void Reducer::follow_join() {
  if (const double scale = join_->scale(); scale != 1)
    for (const ReducedBucket& b : buckets_->buckets) raw::binary_into(Binary::mul, b.content.buffer, scale);
  if (!first_of_static() || join_->all_active()) return;
  std::vector<int> firings = firings_;
  communicator_
      .broadcast(view_over(firings.data(), DType::i32, {static_cast<int64_t>(firings.size())}), join_->first_active())
      .wait();
  if (join_->ran_out()) firings_ = firings;
}

// A rank that has run out does not follow the others' loss scale; its own is what it was told.
void Reducer::share_gradient_scale() {
  double scale = hook_->gradient_scale();
  communicator_.broadcast(view_over(&scale, DType::f64, {1}), join_->first_active()).wait();
  if (join_->ran_out()) hook_->set_gradient_scale(full({}, scale, DType::f64));
}

void Reducer::shadow_backward() {
  if (state_ == State::counting) abandon();
  if (state_ == State::incomplete) fail(unfinished());
  early_.clear();
  for (const NamedTensor& p : parameters_) p.tensor.set_grad({});
  const double own_scale = hook_->gradient_scale();
  start_counting();
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (!ready_[i]) mark_ready(static_cast<int>(i), false);
  if (first_of_static()) use_.exchange(communicator_);
  finish();
  if (hook_->keeps_state()) hook_->set_gradient_scale(full({}, own_scale, DType::f64));
}

void Reducer::adopt_gradients(int root, bool takes) {
  std::vector<int> defined;
  defined.reserve(parameters_.size());
  for (const NamedTensor& p : parameters_) defined.push_back(p.tensor.grad().defined() ? 1 : 0);
  communicator_.broadcast(view_over(defined.data(), DType::i32, {static_cast<int64_t>(defined.size())}), root).wait();
  std::vector<Tensor> received;
  for (size_t i = 0; i < defined.size(); ++i) {
    const Tensor& p = parameters_[i].tensor;
    if (takes && defined[i] == 0) p.set_grad({});
    if (takes && defined[i] != 0 && !p.grad().defined()) buckets_->publish(static_cast<int>(i));
    if (defined[i] != 0) received.push_back(takes || communicator_.rank() == root ? p.grad() : empty_like(p));
  }
  broadcast_coalesced(communicator_, received, root);
}

// Parameters without a gradient come last.
void Reducer::complete_order() {
  std::vector<bool> listed(parameters_.size());
  for (const int p : order_) listed[static_cast<size_t>(p)] = true;
  for (size_t i = 0; i < listed.size(); ++i)
    if (!listed[i]) order_.push_back(static_cast<int>(i));
}

void Reducer::abandon() {
  state_ = State::idle;
  for (ReducedBucket& b : buckets_->buckets) std::exchange(b.exchange, {}).work.wait();
  use_.finish();
}

}  // namespace loom
