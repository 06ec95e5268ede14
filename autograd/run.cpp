#include <loom/autograd/run.h>

#include <algorithm>

#include <loom/autograd/autocast.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/raw.h>

namespace loom::autograd {

thread_local constinit Run* Run::current_ = nullptr;

void Run::visit(Node& node) {
  if (node.run == this) return;
  check(node.run == nullptr, "backward: the graph of op '", node.op->name,
        "' is already being differentiated (backward called from one of its own hooks or from another thread)");
  visited_.push_back(&node);
  node.run = this;
  node.pending = 0;
  node.needed = true;
}

void Run::visit_leaf(const std::shared_ptr<Meta>& leaf) {
  if (leaf->run == this) return;
  leaves_.push_back({leaf, leaf->run, leaf->pending, std::move(leaf->incoming)});
  leaf->run = this;
  leaf->pending = 0;
  leaf->incoming = Tensor();
}

void Run::seed(const Tensor& output, const Tensor& given) {
  const Tensor::Body& body = output.body();
  Tensor gradient = body.autocast ? given.to(body.graph_dtype) : given;
  if (body.node) {
    roots_.push_back(body.node);
    visit(*body.node);
    add_into(body.node->incoming[body.slot], std::move(gradient));
  } else {
    visit_leaf(body.meta);
    add_into(body.meta->incoming, std::move(gradient));
  }
}

void Run::capture(const Tensor& input, size_t position) {
  if (captured.size() <= position) captured.resize(position + 1);
  if (const Tensor::Body& body = input.body(); body.node)
    node_captures_[body.node.get()].emplace_back(body.slot, position);
  else
    leaf_captures_[body.meta.get()].push_back(position);
}

// Counts, for every node and leaf that the seeds reach, how many gradients it will get.
void Run::discover() {
  for (size_t next = 0; next < visited_.size(); ++next) {
    for (const Edge& edge : visited_[next]->inputs) {
      if (edge.node) {
        visit(*edge.node);
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
  std::vector<Node*> order = visited_;
  std::sort(order.begin(), order.end(), [](const Node* a, const Node* b) { return a->sequence < b->sequence; });
  for (Node* const node : order)
    node->needed = std::any_of(node->inputs.begin(), node->inputs.end(), [&](const Edge& edge) {
      if (edge.node) return edge.node->needed || node_captures_.contains(edge.node.get());
      return edge.leaf && leaf_captures_.contains(edge.leaf.get());
    });
}

void Run::execute() {
  const size_t seeded = visited_.size();  // the others wait for these
  discover();
  mark_needed();
  const GradMode mode(create_);
  const NoAutocast as_recorded;
  const auto direct_leaves = leaves_;
  for (const Noted& noted : direct_leaves)
    if (noted.leaf->pending == 0) finish_leaf(noted.leaf);
  for (Node* const node : std::span(visited_).first(seeded))
    if (node->pending == 0) ready_.push(node);
  while (Node* const node = ready_.pop()) process(*node);
  finished_ = true;
}

void Run::process(Node& node) {
  if (!node.hooks.empty()) run_output_hooks(node);
  if (!node_captures_.empty())
    if (const auto found = node_captures_.find(&node); found != node_captures_.end())
      for (const auto& [slot, position] : found->second) captured[position] = node.incoming[slot];
  if (node.needed) propagate(node);
  for (const Edge& edge : node.inputs) settle(edge);
  node.incoming.reset();
}

void Run::run_output_hooks(Node& node) {
  const auto hooks = node.hooks;  // a hook may remove itself
  for (const auto& [slot, number, hook] : hooks)
    if (node.incoming[slot].defined())
      if (std::optional<Tensor> replaced = hook(node.incoming[slot])) node.incoming[slot] = *std::move(replaced);
}

namespace {

// What a rule keeps it may write over: its node is freed also where the rule throws.
struct Spent {
  Node& node;
  bool frees;
  ~Spent() {
    if (frees) node.release();
  }
};

profile::Description description(const char* op, std::span<const Tensor> gradients) {
  const auto any = std::ranges::find_if(gradients, [](const Tensor& g) { return g.defined(); });
  return {.name = str(op, " backward"), .device = any->device()};
}

}  // namespace

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
  const profile::Range range(Activity::backward, [&] { return description(op_name, gradients); });
  Needs needs;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Edge& edge = node.inputs[i];
    const bool wanted = edge.node ? accumulate_ || edge.node->needed || node_captures_.contains(edge.node.get())
                                  : edge.leaf && (accumulate_ || leaf_captures_.contains(edge.leaf.get()));
    if (wanted) needs.set(i);
  }
  running_ = &node;
  Grads grads = [&] {
    const Spent spent{node, !retain_};
    return node.apply(gradients, needs);
  }();
  running_ = nullptr;
  check(grads.size() == node.inputs.size(), op_name, ": its rule gave ", grads.size(), " gradients for ",
        node.inputs.size(), " inputs");
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (needs[i] && grads[i].defined()) deliver(node.inputs[i], std::move(grads[i]));
}

void Run::deliver(Edge& edge, Tensor&& gradient) {
  if (gradient.shape() != edge.shape) gradient = sum_to(gradient, edge.shape);
  if (gradient.dtype() != edge.dtype) gradient = gradient.to(edge.dtype);
  add_into(edge.node ? edge.node->incoming[edge.slot] : edge.leaf->incoming, std::move(gradient));
}

namespace {

void before_write(const Meta& leaf) {
  const auto hooks = leaf.write_hooks;  // a hook may remove itself
  for (const auto& [number, hook] : hooks) hook();
}

}  // namespace

Destination Run::destination(size_t input) const {
  if (running_ == nullptr) return {};
  const Edge& edge = running_->inputs[input];
  Destination none{.dtype = edge.dtype};
  const Meta* const leaf = edge.leaf.get();
  if (!accumulate_ || create_ || leaf == nullptr) return none;
  if (leaf->pending != 1 || leaf->incoming.defined() || !leaf->hooks.empty()) return none;
  const bool adds = leaf->grad.defined();
  const Tensor& memory = adds ? leaf->grad : leaf->grad_buffer;
  if (!memory.defined() || requires_grad(memory) || memory.dtype() != edge.dtype) return none;
  before_write(*leaf);
  return {memory, adds, edge.dtype};
}

bool keeps_graph() { return Run::current() == nullptr || Run::current()->retains(); }

Destination destination(size_t input) { return Run::current() ? Run::current()->destination(input) : Destination(); }

// One contribution less to wait for; also where none came.
void Run::settle(const Edge& edge) {
  if (edge.node) {
    if (--edge.node->pending == 0) ready_.push(edge.node.get());
  } else if (edge.leaf) {
    if (--edge.leaf->pending == 0) finish_leaf(edge.leaf);
  }
}

namespace {

bool sole_owner(const Tensor& x) {
  return x.body_pointer()->references() == 1 && x.storage()->references() == 1 && x.is_contiguous() &&
         static_cast<size_t>(x.numel()) * item_size(x.dtype()) == x.storage()->bytes();
}

}  // namespace

// Adding in place is allowed only where nobody else can see it: gradients alias (add returns {g, g}).
void Run::add_into(Tensor& sum, Tensor&& gradient) const {
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

namespace {

void accumulate_grad(Meta& leaf, Tensor gradient, bool create_graph) {
  if (leaf.grad.defined()) {
    if (gradient.is_same(leaf.grad)) return;  // added where it lies
    before_write(leaf);
    if (create_graph)
      leaf.grad = add(leaf.grad, gradient);
    else
      raw::binary_into(Binary::add, leaf.grad, gradient);
  } else if (leaf.grad_buffer.defined() && !create_graph) {
    if (!gradient.is_same(leaf.grad_buffer)) {
      before_write(leaf);
      raw::copy_into(leaf.grad_buffer, gradient);
    }
    leaf.grad = leaf.grad_buffer;
  } else if (create_graph) {
    leaf.grad = clone(gradient);
  } else {
    leaf.grad = sole_owner(gradient) ? std::move(gradient) : raw::clone(gradient);
  }
}

}  // namespace

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

const char* current_op() { return Run::current() ? Run::current()->op_name : "backward"; }

}  // namespace loom::autograd
