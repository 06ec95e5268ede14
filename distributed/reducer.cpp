#include <loom/distributed/reducer.h>

#include <algorithm>
#include <limits>

#include <loom/autograd/engine.h>
#include <loom/distributed/default_hooks.h>
#include <loom/distributed/work_keeper.h>
#include <loom/tensor/context.h>

namespace loom {

namespace {

constexpr int64_t mebi = int64_t{1} << 20;

}  // namespace

Reducer::Reducer(Communicator& communicator, std::vector<NamedTensor> parameters, const DdpOptions& options)
    : communicator_(communicator),
      options_(options),
      parameters_(std::move(parameters)),
      leaves_(parameters_),
      rebuilds_(options.static_graph || !options.find_unused_parameters),
      ready_(parameters_.size()),
      use_(parameters_.size()),
      firings_(parameters_.size()),
      still_to_come_(parameters_.size()) {
  const double cap = options.bucket_cap_mb.value_or(25);
  check(cap > 0, "DDP: bucket_cap_mb is ", cap, ", expected more than 0");
  statistics.bucket_cap = std::max<int64_t>(1, static_cast<int64_t>(cap * static_cast<double>(mebi)));
  statistics.first_bucket_cap = options.bucket_cap_mb ? statistics.bucket_cap : mebi;
  statistics.parameters = static_cast<int>(parameters_.size());

  // Where buckets will be rebuilt there is one for now: the order of registration says little of that of readiness.
  const int64_t all = std::numeric_limits<int64_t>::max();
  const int64_t limits[] = {statistics.first_bucket_cap, statistics.bucket_cap};
  auto assignment = rebuilds_ ? assign({&all, 1}, {}) : assign(limits, {});
  std::ranges::reverse(assignment);  // what is registered last is ready first
  buckets_.emplace(communicator_, parameters_, std::move(assignment), options_.gradient_as_bucket_view);
  statistics.buckets = buckets_->assignment();
  statistics.bucket_sizes = buckets_->sizes();
  for (const int64_t bytes : statistics.bucket_sizes) statistics.parameter_bytes += bytes;
  use_hook(options.comm_hook ? options.comm_hook : allreduce_hook());
  hook_given_ = options.comm_hook != nullptr;
}

void Reducer::register_comm_hook(std::shared_ptr<CommHook> hook) {
  check(!hook_given_, "register_comm_hook or register_builtin_comm_hook can only be called once.");
  check(hook != nullptr, "register_comm_hook: no hook given");
  check(run_.expired(), "register_comm_hook: called within a backward, whose buckets are on their way");
  use_hook(std::move(hook));
  hook_given_ = true;
}

void Reducer::use_hook(std::shared_ptr<CommHook> hook) {
  auto claim = hook->claim();
  buckets_->prepare(communicator_, *hook);
  hook_ = std::move(hook);
  hook_claim_ = std::move(claim);
  statistics.comm_hook = hook_->name();
}

void Reducer::watch() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const int parameter = static_cast<int>(i);
    before_.push_back(before_grad_write(parameters_[i].tensor, [this, parameter] { before_gradient(parameter); }));
    ready_hooks_.push_back(on_grad_ready(parameters_[i].tensor, [this, parameter] { gradient_ready(parameter); }));
  }
}

// Does not wait: after an exception the other ranks may never come to these reductions.
Reducer::~Reducer() {
  for (size_t i = 0; i < ready_hooks_.size(); ++i) {
    remove_grad_write_hook(parameters_[i].tensor, before_[i]);
    remove_grad_ready_hook(parameters_[i].tensor, ready_hooks_[i]);
  }
  if (buckets_)
    for (const ReducedBucket& b : buckets_->buckets)
      keep_until_done(std::pair(b.content, b.exchange.then), b.exchange.work);
  keep_until_done(use_.flags(), use_.work());
}

std::vector<std::vector<int>> Reducer::assign(std::span<const int64_t> limits, std::span<const int> order) const {
  std::vector<BucketEntry> entries;
  entries.reserve(parameters_.size());
  for (const auto& [name, p] : parameters_)
    entries.push_back({p.numel() * static_cast<int64_t>(item_size(p.dtype())), p.dtype(), p.device()});
  return assign_buckets(entries, limits, order).buckets;
}

bool Reducer::before_forward() {
  statistics.forward_start = DdpStatistics::now();
  if (!run_.expired()) return false;  // within a backward: buckets are in use
  if (state_ == State::counting) abandon();
  if (state_ == State::incomplete) fail(unfinished());
  return rebuilds_ && statistics.iterations > 0;
}

void Reducer::rebuild(int root) {
  check(
      context().capture == nullptr,
      "DDP: the second step lays the buckets out anew, which a captured step must not do at each replay; do two steps "
      "as they are before one is captured");
  std::vector<int> order = statistics.ready_order;
  const std::string own(reinterpret_cast<const char*>(order.data()), order.size() * sizeof(int));
  const std::string common = communicator_.broadcast_bytes(own, root);
  check(common.size() == own.size(), "DDP: rank ", root, " has ", common.size() / sizeof(int),
        " parameters, this rank ", order.size());
  std::copy_n(common.data(), common.size(), reinterpret_cast<char*>(order.data()));
  const int64_t limits[] = {statistics.first_bucket_cap, statistics.bucket_cap};
  auto assignment = assign(limits, order);
  buckets_.reset();  // first: gradients that were set to none free the old buckets before the new ones are made
  buckets_.emplace(communicator_, parameters_, std::move(assignment), options_.gradient_as_bucket_view);
  buckets_->prepare(communicator_, *hook_);
  rebuilds_ = false;
  statistics.has_rebuilt = true;
  statistics.buckets = buckets_->assignment();
  statistics.rebuilt_bucket_sizes = buckets_->sizes();
}

void Reducer::after_forward(std::span<const Tensor> outputs, bool all_found, bool synced) {
  const auto forward = std::make_shared<ForwardPass>();
  forward->synced = synced;
  forward->outputs_known = all_found;
  if (synced && all_found && options_.find_unused_parameters && !options_.static_graph) {
    forward->used = leaves_.reached_from(outputs);
    forward->walked = true;
    warn_if_all_used(*forward);
  }
  for (const Tensor& output : outputs) {
    if (!output.requires_grad()) continue;
    if (output.is_leaf())
      forward->outputs_known = false;  // a hook on a parameter or an input would outlive this forward
    else
      output.register_hook([reducer = weak_from_this(), forward](const Tensor&) -> std::optional<Tensor> {
        if (const auto self = reducer.lock()) self->reach_output(forward);
        return {};
      });
  }
  if (synced) pending_.add(forward);
  last_ = forward;
}

void Reducer::warn_if_all_used(const ForwardPass& forward) {
  if (warned_ || std::ranges::find(forward.used, false) != forward.used.end()) return;
  warned_ = true;
  if (options_.warn)
    options_.warn(
        "find_unused_parameters = true was specified in DDP, but the forward pass did not find any unused parameters. "
        "It costs a walk of the graph and a reduction each step; switch it off if the model never leaves out "
        "parameters. (This warning is given once, and may be wrong where control flow makes later steps leave out "
        "some.)");
}

std::string Reducer::unfinished() const {
  std::string indices, names;
  for (size_t i = 0; i < ready_.size(); ++i)
    if (!ready_[i]) {
      indices += str(' ', i);
      names += str(names.empty() ? "" : ", ", parameters_[i].name);
    }
  return str(
      "Expected to have finished reduction in the prior iteration before starting a new one. This error "
      "indicates that your module has parameters that were not used in producing loss. ",
      options_.static_graph
          ? "Since static_graph is set, your training graph has changed in this iteration, e.g., one parameter "
            "is used in first iteration, but then got unused in the second iteration. this is not compatible "
            "with static_graph set to True."
          : "You can enable unused parameter detection by find_unused_parameters = true, and by making sure all "
            "outputs of forward participate in calculating loss.",
      " Parameter indices which did not receive grad for rank ", communicator_.rank(), ":", indices, " (", names, ')');
}

std::string Reducer::ready_twice(int parameter) const {
  return str(
      "Expected to mark a variable ready only once. This error is caused by one of the following reasons: 1) Use "
      "of a module parameter outside the forward function, in a backward of its own, before the reduction was "
      "complete. 2) Reused parameters in multiple reentrant backward passes, e.g. several regions that run a "
      "backward inside backward over the same part of the model; static_graph allows it where it is the same in "
      "each iteration. Parameter at index ",
      parameter, " with name ", parameters_[static_cast<size_t>(parameter)].name, " has been marked as ready twice.");
}

}  // namespace loom
