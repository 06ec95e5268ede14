#include <loom/distributed/ddp.h>

#include <iostream>
#include <unordered_set>

#include <loom/autograd/grad_mode.h>
#include <loom/autograd/recompute.h>
#include <loom/distributed/coalesced.h>
#include <loom/distributed/reducer.h>
#include <loom/distributed/same_model.h>

namespace loom {

namespace {

// Tied tensors once, under their first name.
std::vector<NamedTensor> distinct(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> out;
  std::unordered_set<const void*> seen;
  for (const NamedTensor& t : tensors)
    if (t.tensor.defined() && seen.insert(t.tensor.body_pointer().get()).second) out.push_back(t);
  return out;
}

std::vector<NamedTensor> trained(const std::vector<NamedTensor>& parameters) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& p : parameters)
    if (p.tensor.requires_grad()) out.push_back(p);
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
  const auto reduced = trained(all);
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

const DdpStatistics& DistributedDataParallel::statistics() const { return reducer_->statistics; }

// Buffers are broadcast before a forward that follows a synchronised one: once in a step of several micro-batches.
void DistributedDataParallel::before_forward(bool training) {
  if (!records()) return;
  if (sync_) reducer_->before_forward(training);
  if (training && options_.broadcast_buffers && buffers_due_) broadcast_coalesced(communicator_, buffers_);
}

void DistributedDataParallel::after_forward(const std::vector<Tensor>& outputs, bool all_found) {
  if (!records()) return;
  reducer_->after_forward(outputs, all_found, sync_);
  buffers_due_ = sync_;
}

}  // namespace loom
