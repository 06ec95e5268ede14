#include <loom/autograd/graph.h>

#include <loom/tensor/raw.h>

namespace loom::autograd {

namespace {

std::atomic<uint64_t> next_sequence{1};

// Nodes that wait for their destruction, linked by their notes, and whether somebody up the stack is destroying
// already.
struct Graveyard {
  const Node* first;
  bool draining;
};
[[gnu::tls_model("initial-exec")]] thread_local constinit Graveyard graveyard{};

// Destroys a node and, one after the other, all that die with it: no recursion on long chains.
void retire(const Node* node) noexcept {
  node->run = graveyard.first;
  graveyard.first = node;
  if (graveyard.draining) return;
  graveyard.draining = true;
  while (graveyard.first != nullptr) {
    const Node* const next = graveyard.first;
    graveyard.first = static_cast<const Node*>(next->run);
    delete next;
  }
  graveyard.draining = false;
}

}  // namespace

void add_reference(const Node& node) noexcept { add_reference(static_cast<const Counted&>(node)); }
void drop_reference(const Node& node) noexcept {
  if (node.drop()) retire(&node);
}

Node::Node(const Op& o, size_t inputs, size_t outputs)
    : op(&o), sequence(fetch_add(next_sequence, uint64_t{1}, std::memory_order_relaxed)), incoming(outputs) {
  this->inputs.reserve(inputs);
}

void Saved::report_modified() const {
  fail(current_op(), ": a tensor saved for backward was modified in place (version ", tensor_.version(), ", saved at ",
       version_, "); clone it before the in-place operation");
}

namespace detail {

Tensor without_graph(const Tensor& y) { return raw::alias(y); }

Tensor with_node(const Tensor& y, Node& node) {
  Tensor linked = raw::alias(y);
  if (!context().grad_mode) return linked;
  attach(linked, node, 0);
  return linked;
}

void connect(Node& node, const Tensor& input) {
  Edge& edge = node.inputs.emplace_back();
  if (!requires_grad(input)) return;
  const Tensor::Body& body = input.body();
  if (body.node) {
    edge.node = body.node;
    edge.slot = body.slot;
  } else {
    edge.leaf = body.meta;
  }
  edge.dtype = body.autocast ? body.graph_dtype : body.dtype;
  edge.shape = body.shape;
}

void attach(const Tensor& y, Node& node, uint32_t slot) {
  Tensor::Body& body = y.mutable_body();
  body.node = Ref<Node>(&node);
  body.slot = slot;
}

}  // namespace detail
}  // namespace loom::autograd
