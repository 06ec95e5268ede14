#include <loom/autograd/checkpoint.h>

#include <loom/autograd/engine.h>
#include <loom/tensor/raw.h>

namespace loom::autograd {

thread_local constinit RegionScope* region_scope = nullptr;

struct Recomputed {
  std::shared_ptr<Region> region;
  uint32_t slot;  // its place in the graph
  Ref<Node> node;
  std::shared_ptr<Meta> meta;
  bool autocast;
  DType graph_dtype;
  Tensor value;  // from the recomputation to the end of that backward
};

namespace {

// Ends a recomputation early. No std::exception, so that the region's own handlers let it pass.
struct Stop {};

}  // namespace

bool recomputing() {
  for (const RegionScope* scope = region_scope; scope; scope = scope->outer)
    if (scope->replay) return true;
  return false;
}

bool replayed_flag(bool flag) {
  RegionScope& scope = *region_scope;
  std::vector<bool>& flags = scope.region.flags_;
  if (!scope.replay)
    flags.push_back(flag);
  else if (scope.next_flag < flags.size())
    return flags[scope.next_flag++];
  return flag;
}

std::shared_ptr<Recomputed> note_saved(const Tensor& x) {
  RegionScope& scope = *region_scope;
  if (scope.replay) {
    scope.compare(x);
    return nullptr;
  }
  const Tensor::Body& body = x.body();
  auto& entry = scope.region.entries_.emplace_back(Region::Entry{{}, x.dtype(), x.shape()});
  if (!body.node && requires_grad(x) && !body.autocast) return nullptr;  // a leaf: it is there anyway
  auto saved = std::make_shared<Recomputed>(Recomputed{
      scope.region.shared_from_this(), body.slot, body.node, body.meta, body.autocast, body.graph_dtype, {}});
  entry.saved = saved;
  return saved;
}

const Tensor& recomputed_value(Recomputed& saved) {
  if (!saved.value.defined()) saved.region->recompute();
  return saved.value;
}

void RegionScope::compare(const Tensor& x) {
  if (done) return;
  const size_t i = next++;
  const Region::Entry& entry = region.entries_[i];
  check(x.dtype() == entry.dtype && x.shape() == entry.shape,
        "checkpoint: the recomputation saved other values than the forward pass: tensor ", i, " is ", entry.dtype,
        entry.shape, " in the forward pass and ", x.dtype(), x.shape(),
        " in the recomputation; the function must do the same both times");
  const auto saved = entry.saved.lock();
  if (saved && !saved->value.defined()) {
    saved->value = raw::alias(x);
    Tensor::Body& body = saved->value.mutable_body();
    body.slot = saved->slot;
    body.node = saved->node;
    body.meta = saved->meta;
    body.autocast = saved->autocast;
    body.graph_dtype = saved->graph_dtype;
  }
  if (i < last_needed) return;
  done = true;
  throw Stop();
}

void Region::recompute() {
  const std::shared_ptr<Region> self = shared_from_this();  // the last user may go meanwhile
  RegionScope scope(*this, true);
  for (size_t i = 0; i < entries_.size(); ++i)
    if (const auto saved = entries_[i].saved.lock(); saved && !saved->value.defined()) scope.last_needed = i;
  {
    Context at_forward = context_;
    at_forward.cast_cache.reset();  // that was another region's; parameters may have changed since
    const ContextGuard guard(at_forward);
    try {
      run();
    } catch (const Stop&) {
    }
  }
  check(scope.done, "checkpoint: the forward pass saved ", entries_.size(), " tensors for backward, the recomputation ",
        scope.next, "; the function must do the same both times");
  on_backward_end([self] {
    for (const Entry& entry : self->entries_)
      if (const auto saved = entry.saved.lock()) saved->value = Tensor();
  });
}

namespace detail {

Tensor argument_again(const Tensor& x, bool requires_grad) {
  Tensor y = raw::alias(x);
  if (requires_grad) y.requires_grad_(true);
  return y;
}

}  // namespace detail
}  // namespace loom::autograd
