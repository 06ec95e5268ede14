#include <loom/autograd/engine.h>

#include <algorithm>
#include <queue>
#include <unordered_map>

#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace autograd {

namespace {

// One differentiation under way. Notes in nodes and leaves belong to the run whose address they carry; they are wiped
// at the end, also when a rule throws.
class Run {
 public:
  Run(bool retain, bool create, bool accumulate) : retain_(retain), create_(create), accumulate_(accumulate) {}
  ~Run() {
    for (const auto& node : visited_) {
      node->run = nullptr;
      node->incoming = Grads();
    }
    for (const auto& leaf : leaves_) {
      leaf->run = nullptr;
      leaf->incoming = Tensor();
    }
    current_ = outer_;
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  void seed(const Tensor& output, const Tensor& gradient);
  void capture(const Tensor& input, size_t position);
  void execute();
  std::vector<Tensor> captured;
  std::vector<std::function<void()>> at_end;

  static Run* current() { return current_; }
  const char* op_name = "backward";

 private:
  struct Later {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
      return a->sequence < b->sequence;
    }
  };

  void visit(const std::shared_ptr<Node>& node);
  void visit_leaf(const std::shared_ptr<Meta>& leaf);
  void discover();
  void mark_needed();
  void process(const std::shared_ptr<Node>& node);
  void run_output_hooks(Node& node);
  void propagate(Node& node);
  void deliver(Edge& edge, Tensor gradient);
  void settle(const Edge& edge);
  void finish_leaf(const std::shared_ptr<Meta>& leaf);
  void add_into(Tensor& sum, Tensor gradient) const;

  const bool retain_, create_, accumulate_;
  Run* const outer_ = current_;
  std::vector<std::shared_ptr<Node>> visited_;
  std::vector<std::shared_ptr<Meta>> leaves_;
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Later> ready_;
  std::unordered_map<const Node*, std::vector<std::pair<uint32_t, size_t>>> node_captures_;
  std::unordered_map<const Meta*, std::vector<size_t>> leaf_captures_;
  static thread_local Run* current_;

 public:
  void become_current() { current_ = this; }
};

thread_local Run* Run::current_ = nullptr;

void Run::visit(const std::shared_ptr<Node>& node) {
  if (node->run == this) return;
  check(node->run == nullptr, "backward: the graph of op '", node->op->name,
        "' is already being differentiated (backward called from one of its own hooks or from another thread)");
  node->run = this;
  node->pending = 0;
  node->needed = true;
  node->incoming = Grads(node->outputs());
  visited_.push_back(node);
}

void Run::visit_leaf(const std::shared_ptr<Meta>& leaf) {
  if (leaf->run == this) return;
  leaf->run = this;
  leaf->pending = 0;
  leaves_.push_back(leaf);
}

void Run::seed(const Tensor& output, const Tensor& gradient) {
  const auto& meta = output.body().meta;
  if (meta->node) {
    visit(meta->node);
    add_into(meta->node->incoming[meta->slot], gradient);
  } else {
    visit_leaf(meta);
    add_into(meta->incoming, gradient);
  }
}

void Run::capture(const Tensor& input, size_t position) {
  if (captured.size() <= position) captured.resize(position + 1);
  const auto& meta = input.body().meta;
  if (meta->node)
    node_captures_[meta->node.get()].emplace_back(meta->slot, position);
  else
    leaf_captures_[meta.get()].push_back(position);
}

// Counts, for every node and leaf that the seeds reach, how many gradients it will get.
void Run::discover() {
  for (size_t next = 0; next < visited_.size(); ++next) {
    const std::shared_ptr<Node> node = visited_[next];
    for (const Edge& edge : node->inputs) {
      if (edge.node) {
        visit(edge.node);
        ++edge.node->pending;
      } else if (edge.leaf) {
        visit_leaf(edge.leaf);
        ++edge.leaf->pending;
      }
    }
  }
}

// Only nodes on a path to what was asked for run their rules. Ascending sequence: inputs are decided before users.
void Run::mark_needed() {
  if (accumulate_) return;
  std::vector<Node*> order;
  order.reserve(visited_.size());
  for (const auto& node : visited_) order.push_back(node.get());
  std::sort(order.begin(), order.end(), [](const Node* a, const Node* b) { return a->sequence < b->sequence; });
  for (Node* const node : order)
    node->needed = std::any_of(node->inputs.begin(), node->inputs.end(), [&](const Edge& edge) {
      if (edge.node) return edge.node->needed || node_captures_.contains(edge.node.get());
      return edge.leaf && leaf_captures_.contains(edge.leaf.get());
    });
}

void Run::execute() {
  discover();
  mark_needed();
  const GradMode mode(create_);
  const auto direct_leaves = leaves_;
  for (const auto& leaf : direct_leaves)
    if (leaf->pending == 0) finish_leaf(leaf);
  for (const auto& node : visited_)
    if (node->pending == 0) ready_.push(node);
  while (!ready_.empty()) {
    const std::shared_ptr<Node> node = ready_.top();
    ready_.pop();
    process(node);
  }
}

void Run::process(const std::shared_ptr<Node>& node) {
  run_output_hooks(*node);
  if (const auto found = node_captures_.find(node.get()); found != node_captures_.end())
    for (const auto& [slot, position] : found->second) captured[position] = node->incoming[slot];
  if (node->needed) propagate(*node);
  for (const Edge& edge : node->inputs) settle(edge);
  node->incoming = Grads(node->outputs());
}

void Run::run_output_hooks(Node& node) {
  const auto hooks = node.hooks;  // a hook may remove itself
  for (const auto& [slot, number, hook] : hooks)
    if (node.incoming[slot].defined())
      if (std::optional<Tensor> replaced = hook(node.incoming[slot])) node.incoming[slot] = *std::move(replaced);
}

void Run::propagate(Node& node) {
  std::vector<Tensor> several;
  Tensor single;
  std::span<const Tensor> gradients;
  if (node.outputs() == 1) {
    single = std::move(node.incoming[0]);
    gradients = {&single, 1};
  } else {
    for (size_t i = 0; i < node.outputs(); ++i) several.push_back(std::move(node.incoming[i]));
    gradients = several;
  }
  if (std::none_of(gradients.begin(), gradients.end(), [](const Tensor& g) { return g.defined(); })) return;
  op_name = node.op->name;
  check(!node.released(), op_name,
        ": backward through a graph that an earlier backward has freed; pass "
        "retain_graph to the earlier one to differentiate twice");
  Needs needs;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Edge& edge = node.inputs[i];
    const bool wanted = edge.node ? accumulate_ || edge.node->needed || node_captures_.contains(edge.node.get())
                                  : edge.leaf && (accumulate_ || leaf_captures_.contains(edge.leaf.get()));
    if (wanted) needs.set(i);
  }
  Grads grads = node.apply(gradients, needs);
  if (!retain_) node.release();
  check(grads.size() == node.inputs.size(), op_name, ": its rule gave ", grads.size(), " gradients for ",
        node.inputs.size(), " inputs");
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (needs[i] && grads[i].defined()) deliver(node.inputs[i], std::move(grads[i]));
}

void Run::deliver(Edge& edge, Tensor gradient) {
  if (gradient.shape() != edge.shape) gradient = sum_to(gradient, edge.shape);
  if (gradient.dtype() != edge.dtype) gradient = gradient.to(edge.dtype);
  add_into(edge.node ? edge.node->incoming[edge.slot] : edge.leaf->incoming, std::move(gradient));
}

// One contribution less to wait for; also where none came.
void Run::settle(const Edge& edge) {
  if (edge.node) {
    if (--edge.node->pending == 0) ready_.push(edge.node);
  } else if (edge.leaf) {
    if (--edge.leaf->pending == 0) finish_leaf(edge.leaf);
  }
}

bool sole_owner(const Tensor& x) {
  return x.body_pointer().use_count() == 1 && x.storage().use_count() == 1 && x.is_contiguous() &&
         static_cast<size_t>(x.numel()) * item_size(x.dtype()) == x.storage()->bytes();
}

// Adding in place is allowed only where nobody else can see it: gradients alias (add returns {g, g}).
void Run::add_into(Tensor& sum, Tensor gradient) const {
  if (!sum.defined())
    sum = std::move(gradient);
  else if (!create_ && sole_owner(sum))
    raw::binary_into(Binary::add, sum, gradient);
  else if (!create_ && sole_owner(gradient)) {
    raw::binary_into(Binary::add, gradient, sum);
    sum = std::move(gradient);
  } else
    sum = add(sum, gradient);
}

void accumulate_grad(Meta& leaf, Tensor gradient, bool create_graph) {
  if (leaf.grad.defined()) {
    if (create_graph)
      leaf.grad = add(leaf.grad, gradient);
    else
      raw::binary_into(Binary::add, leaf.grad, gradient);
  } else if (leaf.grad_buffer.defined() && !create_graph) {
    raw::copy_into(leaf.grad_buffer, gradient);
    leaf.grad = leaf.grad_buffer;
  } else if (create_graph) {
    leaf.grad = clone(gradient);
  } else {
    leaf.grad = sole_owner(gradient) ? std::move(gradient) : raw::clone(gradient);
  }
}

void Run::finish_leaf(const std::shared_ptr<Meta>& leaf) {
  Tensor gradient = std::move(leaf->incoming);
  leaf->incoming = Tensor();
  if (!gradient.defined()) return;
  const auto hooks = leaf->hooks;
  for (const auto& [number, hook] : hooks)
    if (std::optional<Tensor> replaced = hook(gradient)) gradient = *std::move(replaced);
  if (const auto found = leaf_captures_.find(leaf.get()); found != leaf_captures_.end())
    for (const size_t position : found->second) captured[position] = gradient;
  if (!accumulate_) return;
  accumulate_grad(*leaf, std::move(gradient), create_);
  const auto ready = leaf->ready_hooks;
  for (const auto& [number, hook] : ready) hook();
}

Tensor seed_for(const char* what, const Tensor& output, const Tensor& seed, size_t i) {
  check(requires_grad(output), what, ": output ", i, " does not require grad; no input of it does, or it was computed ",
        "under NoGrad");
  if (!seed.defined()) {
    check(output.numel() == 1, what, ": output ", i, " has shape ", output.shape(),
          "; a gradient must be given for outputs of more than one element");
    return ones_like(output);
  }
  check(seed.shape() == output.shape(), what, ": the gradient of output ", i, " has shape ", seed.shape(),
        ", the output ", output.shape());
  return seed.dtype() == output.dtype() ? seed : seed.to(output.dtype());
}

}  // namespace

const char* current_op() { return Run::current() ? Run::current()->op_name : "backward"; }

namespace {

void start(Run& run, const char* what, std::span<const Tensor> outputs, std::span<const Tensor> seeds) {
  check(seeds.empty() || seeds.size() == outputs.size(), what, ": ", seeds.size(), " gradients for ", outputs.size(),
        " outputs");
  run.become_current();
  for (size_t i = 0; i < outputs.size(); ++i)
    run.seed(outputs[i], seed_for(what, outputs[i], seeds.empty() ? Tensor() : seeds[i], i));
  run.execute();
}

}  // namespace
}  // namespace autograd

std::vector<Tensor> grad(std::span<const Tensor> outputs, std::span<const Tensor> inputs, std::span<const Tensor> seeds,
                         const GradOptions& options) {
  std::vector<Tensor> result;
  std::vector<std::function<void()>> at_end;
  {
    autograd::Run run(options.retain_graph || options.create_graph, options.create_graph, false);
    for (size_t i = 0; i < inputs.size(); ++i) {
      check(autograd::requires_grad(inputs[i]), "grad: input ", i, " does not require grad");
      run.capture(inputs[i], i);
    }
    autograd::start(run, "grad", outputs, seeds);
    result = std::move(run.captured);
    at_end = std::move(run.at_end);
  }
  result.resize(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i)
    check(options.allow_unused || result[i].defined(), "grad: the outputs do not depend on input ", i,
          "; set allow_unused to get an undefined gradient instead");
  for (const auto& callback : at_end) callback();
  return result;
}

Tensor grad(const Tensor& output, const Tensor& input, const Tensor& seed, const GradOptions& options) {
  const Tensor seeds[] = {seed};
  return grad({&output, 1}, {&input, 1}, seeds, options)[0];
}

void backward(std::span<const Tensor> outputs, std::span<const Tensor> seeds, bool retain_graph, bool create_graph) {
  std::vector<std::function<void()>> at_end;
  {
    autograd::Run run(retain_graph || create_graph, create_graph, true);
    autograd::start(run, "backward", outputs, seeds);
    at_end = std::move(run.at_end);
  }
  for (const auto& callback : at_end) callback();
}

namespace {

const std::shared_ptr<autograd::Meta>& leaf_meta(const char* what, const Tensor& leaf) {
  const auto& meta = leaf.body().meta;
  check(meta && meta->requires_grad && !meta->node, what, ": the tensor is not a leaf that requires grad");
  return meta;
}

std::atomic<uint64_t> next_hook{1};

}  // namespace

uint64_t on_grad_ready(const Tensor& leaf, std::function<void()> hook) {
  const uint64_t number = next_hook++;
  leaf_meta("on_grad_ready", leaf)->ready_hooks.emplace_back(number, std::move(hook));
  return number;
}

void remove_grad_ready_hook(const Tensor& leaf, uint64_t number) {
  const auto& meta = leaf.body().meta;
  if (meta) std::erase_if(meta->ready_hooks, [&](const auto& entry) { return entry.first == number; });
}

void on_backward_end(std::function<void()> callback) {
  autograd::Run* const run = autograd::Run::current();
  check(run != nullptr, "on_backward_end: no backward is running on this thread");
  run->at_end.push_back(std::move(callback));
}

void set_grad_buffer(const Tensor& leaf, const Tensor& buffer) {
  const auto& meta = leaf_meta("set_grad_buffer", leaf);
  if (buffer.defined())
    check(buffer.shape() == leaf.shape() && buffer.dtype() == leaf.dtype(), "set_grad_buffer: the buffer is ",
          buffer.dtype(), buffer.shape(), ", the tensor ", leaf.dtype(), leaf.shape());
  meta->grad_buffer = buffer;
}

uint64_t Tensor::register_hook(std::function<std::optional<Tensor>(const Tensor&)> hook) const {
  check(autograd::requires_grad(*this), "register_hook: the tensor does not require grad");
  const uint64_t number = next_hook++;
  const auto& meta = body().meta;
  if (meta->node)
    meta->node->hooks.push_back({meta->slot, number, std::move(hook)});
  else
    meta->hooks.emplace_back(number, std::move(hook));
  return number;
}

void Tensor::remove_hook(uint64_t number) const {
  const auto& meta = body().meta;
  if (!meta) return;
  std::erase_if(meta->hooks, [&](const auto& entry) { return entry.first == number; });
  if (meta->node) std::erase_if(meta->node->hooks, [&](const auto& entry) { return entry.number == number; });
}

}  // namespace loom
