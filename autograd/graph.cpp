#include <loom/autograd/graph.h>

#include <loom/tensor/raw.h>

namespace loom::autograd {

namespace {

std::atomic<uint64_t> next_sequence{1};

// Nodes waiting for their destruction, and whether somebody up the stack is already destroying.
struct Graveyard {
  std::vector<Node*> nodes;
  bool draining = false;
};
thread_local Graveyard graveyard;

}  // namespace

Node::Node(const Op& o, size_t outputs)
    : op(&o), sequence(next_sequence.fetch_add(1, std::memory_order_relaxed)), outputs_(outputs) {}

void retire(Node* node) noexcept {
  if (graveyard.draining) {
    graveyard.nodes.push_back(node);
    return;
  }
  graveyard.draining = true;
  delete node;
  while (!graveyard.nodes.empty()) {
    Node* const next = graveyard.nodes.back();
    graveyard.nodes.pop_back();
    delete next;
  }
  graveyard.draining = false;
}

void Saved::report_modified() const {
  fail(current_op(), ": a tensor saved for backward was modified in place (version ", tensor_.version(), ", saved at ",
       version_, "); clone it before the in-place operation");
}

namespace detail {

Tensor without_graph(const Tensor& y) { return raw::alias(y); }

Tensor with_node(const Tensor& y, std::shared_ptr<Node> node) {
  Tensor linked = raw::alias(y);
  if (!context().grad_mode) return linked;
  attach(linked, node, 0);
  return linked;
}

void connect(Node& node, const Tensor& input) {
  Edge& edge = node.inputs.emplace_back();
  if (!requires_grad(input)) return;
  const auto& meta = input.body().meta;
  if (meta->node) {
    edge.node = meta->node;
    edge.slot = meta->slot;
  } else {
    edge.leaf = meta;
  }
  edge.dtype = input.dtype();
  edge.shape = input.shape();
}

void attach(const Tensor& y, const std::shared_ptr<Node>& node, uint32_t slot) {
  auto meta = std::make_shared<Meta>();
  meta->node = node;
  meta->slot = slot;
  y.mutable_body().meta = std::move(meta);
}

}  // namespace detail
}  // namespace loom::autograd
