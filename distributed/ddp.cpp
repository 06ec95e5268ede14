#include <loom/distributed/ddp.h>

#include <algorithm>
#include <iostream>
#include <unordered_set>

#include <loom/autograd/grad_mode.h>
#include <loom/autograd/recompute.h>
#include <loom/distributed/coalesced.h>
#include <loom/distributed/reducer.h>
#include <loom/distributed/same_model.h>

namespace loom {

namespace {

// What a forward announces, added up.
constexpr int forward_event = 1, rebuild_event = 2, buffers_event = 4;

// Tied tensors once, under their first name.
std::vector<NamedTensor> distinct(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> out;
  std::unordered_set<const void*> seen;
  for (const NamedTensor& t : tensors)
    if (t.tensor.defined() && seen.insert(t.tensor.body_pointer().get()).second) out.push_back(t);
  return out;
}

// Those that require gradients, or those that do not.
std::vector<NamedTensor> requiring(const std::vector<NamedTensor>& parameters, bool gradients) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& p : parameters)
    if (p.tensor.requires_grad() == gradients) out.push_back(p);
  return out;
}

bool requiring_none(const std::vector<NamedTensor>& parameters) {
  return std::ranges::none_of(parameters, [](const NamedTensor& p) { return p.tensor.requires_grad(); });
}

std::string names_of(const std::vector<NamedTensor>& parameters) {
  std::string out;
  for (const NamedTensor& p : parameters) out += (out.empty() ? "" : ", ") + p.name;
  return out;
}

// A forward that a checkpoint runs again within backward is not a new one.
bool records() { return context().grad_mode && !autograd::recomputing(); }

DdpOptions with_warnings(DdpOptions options, int rank) {
  if (!options.warn && rank == 0)
    options.warn = [](const std::string& text) { std::cerr << "warning: " << text << '\n'; };
  return options;
}

}  // namespace

DistributedDataParallel::DistributedDataParallel(Communicator& communicator, const std::vector<NamedTensor>& parameters,
                                                 const std::vector<NamedTensor>& buffers, DdpOptions options)
    : communicator_(communicator), options_(with_warnings(std::move(options), communicator.rank())) {
  const auto all = distinct(parameters), state = distinct(buffers);
  if (options_.init_sync) check_same_model(communicator, all, state);
  const auto reduced = requiring(all, true);
  frozen_ = requiring(all, false);
  check(!reduced.empty(),
        "DistributedDataParallel is not needed when a module doesn't have any parameter that requires a gradient.");
  for (const NamedTensor& b : state) buffers_.push_back(b.tensor);
  if (options_.init_sync) {
    std::vector<Tensor> everything = buffers_;
    for (const NamedTensor& p : all) everything.push_back(p.tensor);
    broadcast_coalesced(communicator, everything);
  }
  reducer_ = std::make_shared<Reducer>(communicator, reduced, options_);
  reducer_->watch();
}

DistributedDataParallel::~DistributedDataParallel() = default;

void DistributedDataParallel::register_comm_hook(std::shared_ptr<CommHook> hook) {
  reducer_->register_comm_hook(std::move(hook));
}

const DdpStatistics& DistributedDataParallel::statistics() const { return reducer_->statistics; }

// Buffers are broadcast before a forward that follows a synchronised one: once in a step of several micro-batches.
void DistributedDataParallel::before_forward(bool training) {
  if (!records()) return;
  training_ = training;
  frozen_forward_ = requiring_none(reducer_->parameters());
  if (sync_ && training) check_frozen();
  const bool rebuild = sync_ && !frozen_forward_ && reducer_->before_forward() && training;
  const bool buffers = training && options_.broadcast_buffers && buffers_due_ && !buffers_.empty();
  if (join_ && training && (rebuild || buffers || join_->announces_all()))
    join_->announce(*this, forward_event | (rebuild ? rebuild_event : 0) | (buffers ? buffers_event : 0));
  follow_forward(rebuild, buffers);
}

// The collectives before a forward. Ranks that have run out of data have no news.
void DistributedDataParallel::follow_forward(bool rebuild, bool buffers) {
  const int root = join_ ? join_->first_active() : 0;
  if (rebuild) reducer_->rebuild(root);
  if (buffers) broadcast_coalesced(communicator_, buffers_, root);
}

void DistributedDataParallel::after_forward(const std::vector<Tensor>& outputs, bool all_found) {
  if (!records()) return;
  if (!frozen_forward_) reducer_->after_forward(outputs, all_found, sync_);
  if (training_) buffers_due_ = sync_;
}

void DistributedDataParallel::set_join(Join* join) {
  join_ = join;
  reducer_->set_join(join, this);
}

void DistributedDataParallel::shadow(int event) {
  if (event == Reducer::backward_event)
    reducer_->shadow_backward();
  else
    follow_forward((event & rebuild_event) != 0, (event & buffers_event) != 0);
}

void DistributedDataParallel::adopt(int rank) {
  std::vector<Tensor> everything = buffers_;
  for (const NamedTensor& p : reducer_->parameters()) everything.push_back(p.tensor);
  for (const NamedTensor& p : frozen_) everything.push_back(p.tensor);
  broadcast_coalesced(communicator_, everything, rank);
  reducer_->adopt_gradients(rank, join_->missed_some());
  buffers_due_ = true;
}

// Which gradients are reduced is laid out at setup. The ranks freeze alike, or none gets further than here. While all
// are frozen there is nothing to reduce, hence nothing to miss.
void DistributedDataParallel::check_frozen() const {
  const std::string now_frozen = frozen_forward_ ? "" : names_of(requiring(reducer_->parameters(), false));
  const std::string now_trained = names_of(requiring(frozen_, true));
  if (now_frozen.empty() && now_trained.empty()) return;
  fail("DDP: since the module was set up, ",
       now_frozen.empty() ? "" : str("these parameters have been frozen: ", now_frozen),
       now_frozen.empty() || now_trained.empty() ? "" : "; ",
       now_trained.empty() ? "" : str("these have begun to require grad: ", now_trained),
       now_trained.empty() ? "; freeze all that it trains, or set it up again" : "; set it up again");
}

}  // namespace loom
