// The graph of executed ops: what record() writes and the engine (engine.h) walks.
//
// Invariants: a node's sequence number is larger than its inputs', so descending numbers are a topological order; a
// saved output is kept without its graph (else node -> closure -> output -> node never dies); nodes are destroyed
// iteratively.
#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <loom/autograd/op.h>
#include <loom/autograd/recompute.h>
#include <loom/tensor/tensor.h>

namespace loom::autograd {

class Node;

using GradHook = std::function<std::optional<Tensor>(const Tensor&)>;

// What a tensor knows of its gradient: leaves, and others that retain theirs.
struct Meta {
  bool requires_grad = false;  // leaves: gradients are wanted
  bool retains_grad = false;   // retain_grad has been called
  Tensor grad;
  Tensor grad_buffer;  // if defined, a leaf's first gradient is written here and .grad becomes it (DDP's bucket)
  std::vector<std::pair<uint64_t, GradHook>> hooks;                     // leaves; those of others live in their node
  std::vector<std::pair<uint64_t, std::function<void()>>> write_hooks;  // leaves: before .grad's memory is written to
  std::vector<std::pair<uint64_t, std::function<void()>>> ready_hooks;  // leaves: after .grad is final
  std::string name;                                                     // of a parameter, for messages

  // Engine's notes during one backward.
  const void* run = nullptr;
  int pending = 0;
  Tensor incoming;
};

// Gradients of a node's inputs: as many as inputs, undefined where none flows. Up to 4 are held inline.
class Grads {
 public:
  Grads() = default;
  template <class... T>
    requires(sizeof...(T) > 0 && (std::derived_from<std::remove_cvref_t<T>, Tensor> && ...))
  Grads(T&&... grads) {  // NOLINT: rules return {da, db}
    resize(sizeof...(T));
    size_t i = 0;
    (((*this)[i++] = std::forward<T>(grads)), ...);
  }
  explicit Grads(size_t n) { resize(n); }
  void push_back(Tensor grad) {
    resize(size_ + 1);
    (*this)[size_ - 1] = std::move(grad);
  }
  void resize(size_t n) {
    if (n > inline_.size()) rest_.resize(n - inline_.size());
    size_ = n;
  }
  void reset() {
    for (size_t i = 0; i < size_; ++i) (*this)[i] = Tensor();
  }
  size_t size() const { return size_; }
  Tensor& operator[](size_t i) { return i < inline_.size() ? inline_[i] : rest_[i - inline_.size()]; }
  const Tensor& operator[](size_t i) const { return i < inline_.size() ? inline_[i] : rest_[i - inline_.size()]; }

 private:
  std::array<Tensor, 4> inline_;
  std::vector<Tensor> rest_;
  size_t size_ = 0;
};

// Which inputs a gradient is wanted for.
class Needs {
 public:
  bool operator[](size_t i) const { return i < 64 ? (bits_ >> i & 1) != 0 : true; }
  void set(size_t i) {
    if (i < 64) bits_ |= uint64_t{1} << i;
  }
  bool any() const { return bits_ != 0; }

 private:
  uint64_t bits_ = 0;
};

// Where an input's gradient goes: to the node that made it or to a leaf; to neither where none is wanted.
struct Edge {
  Ref<Node> node;
  std::shared_ptr<Meta> leaf;
  uint32_t slot = 0;
  DType dtype = DType::f32;
  Dims shape;
};

class Node : public Counted, public pool::Pooled {
 public:
  Node(const Op& op, size_t inputs, size_t outputs);
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // Gradients of the inputs from those of the outputs (undefined where none arrived; at least one is defined).
  virtual Grads apply(std::span<const Tensor> grads, const Needs& needs) = 0;
  // Drops what was saved; apply is an error from then on.
  void release() {
    released_ = true;
    drop_saved();
  }
  bool released() const { return released_; }

  // Engine's notes during one backward; `run` also links nodes that are to be destroyed. First, beside what else is
  // read of every node: a large graph comes from memory.
  int pending = 0;
  mutable const void* run = nullptr;
  std::vector<Edge, pool::Allocator<Edge>> inputs;
  const Op* op;
  uint64_t sequence;
  bool needed = true;  // engine's note, too
  struct SlotHook {
    uint32_t slot;
    uint64_t number;
    GradHook hook;
  };
  std::vector<SlotHook> hooks;  // of its outputs
  Grads incoming;               // of each output
  size_t outputs() const { return incoming.size(); }

 private:
  virtual void drop_saved() = 0;
  bool released_ = false;
};

// The op whose rule is running, for messages.
const char* current_op();

// Where the running rule may put its gradient of an input that goes to a leaf and is all that the leaf gets: into the
// leaf's .grad, to be added to what is there, or into the buffer that .grad is to be in. Such memory is returned from
// the rule as the gradient. Undefined: a tensor of its own.
struct Destination {
  Tensor memory;
  bool adds = false;
  std::optional<DType> dtype;  // of the gradient at last, whatever the rule gives; none outside of a rule
};
Destination destination(size_t input);

// In a rule: whether what it saved is wanted again after it has run (retain_graph), and must stay as it is.
bool keeps_graph();

// A tensor kept for backward. Unpacking checks that nobody wrote to it meanwhile. In a region that is computed again at
// backward (checkpoint.h) only its number is kept.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& x) : tensor_(x), version_(x.defined() ? x.version() : 0) {
    if (!region_scope || !x.defined()) [[likely]]
      return;
    recomputed_ = note_saved(x);
    if (recomputed_) tensor_ = Tensor();
  }
  const Tensor& operator()() const {
    if (recomputed_) [[unlikely]]
      return recomputed_value(*recomputed_);
    if (tensor_.defined() && tensor_.version() != version_) [[unlikely]]
      report_modified();
    return tensor_;
  }

 private:
  [[noreturn]] void report_modified() const;
  Tensor tensor_;
  uint64_t version_ = 0;
  std::shared_ptr<Recomputed> recomputed_;
};
inline Saved save(const Tensor& x) { return Saved(x); }

inline bool requires_grad(const Tensor& x) {
  if (!x.defined()) return false;
  const Tensor::Body& body = x.body();
  return body.node || (body.meta && body.meta->requires_grad);
}
template <class... Tensors>
bool recording(const Tensors&... inputs) {
  return context().grad_mode && (requires_grad(inputs) || ...);
}

namespace detail {

// A node that holds its rule. Rules take (g), (g, needs), (g, y), (g, y, needs), or for several outputs
// (std::span<const Tensor> grads, needs); y is the node's own output, relinked to the graph when it is handed out.
template <class Rule>
class RuleNode final : public Node {
 public:
  static constexpr bool with_output = std::is_invocable_v<Rule&, const Tensor&, const Tensor&> ||
                                      std::is_invocable_v<Rule&, const Tensor&, const Tensor&, const Needs&>;

  RuleNode(const Op& op, Rule rule, size_t inputs, size_t outputs)
      : Node(op, inputs, outputs), rule_(std::move(rule)) {}

  void keep_output(const Tensor& y);
  Grads apply(std::span<const Tensor> grads, const Needs& needs) override {
    if constexpr (std::is_invocable_v<Rule&, std::span<const Tensor>, const Needs&>)
      return (*rule_)(grads, needs);
    else if constexpr (std::is_invocable_v<Rule&, const Tensor&, const Tensor&, const Needs&>)
      return (*rule_)(grads[0], relinked_output(), needs);
    else if constexpr (std::is_invocable_v<Rule&, const Tensor&, const Needs&>)
      return (*rule_)(grads[0], needs);
    else if constexpr (with_output)
      return (*rule_)(grads[0], relinked_output());
    else
      return (*rule_)(grads[0]);
  }

 private:
  void drop_saved() override {
    rule_.reset();
    output_ = {};
  }
  Tensor relinked_output();
  std::optional<Rule> rule_;
  [[no_unique_address]] std::conditional_t<with_output, Saved, std::monostate> output_;
};

Tensor without_graph(const Tensor& y);
Tensor with_node(const Tensor& y, Node& node);
void connect(Node& node, const Tensor& input);
void attach(const Tensor& y, Node& node, uint32_t slot);

template <class Rule>
void RuleNode<Rule>::keep_output(const Tensor& y) {
  if constexpr (with_output) output_ = Saved(without_graph(y));
}
template <class Rule>
Tensor RuleNode<Rule>::relinked_output() {
  if constexpr (with_output) return with_node(output_(), *this);
  return {};
}

// The node of an op on these inputs, linked to them.
template <class InputRange, class Rule>
Ref<RuleNode<std::decay_t<Rule>>> make_node(const Op& op, const InputRange& inputs, Rule&& rule, size_t outputs) {
  auto node = make_ref<RuleNode<std::decay_t<Rule>>>(op, std::forward<Rule>(rule), std::size(inputs), outputs);
  for (const Tensor& x : inputs) connect(*node, x);
  return node;
}

template <class Inputs>
bool any_requires_grad(const Inputs& inputs) {
  if (!context().grad_mode) return false;
  for (const Tensor& x : inputs)
    if (requires_grad(x)) return true;
  return false;
}

}  // namespace detail

using Inputs = std::initializer_list<std::reference_wrapper<const Tensor>>;

// The only way into the graph: notes that y was computed from the inputs and how gradients flow back. y is returned
// unchanged (a constant) when no input requires grad or gradients are off. A gradient may be returned in the broadcast
// shape of its input: the engine sums it down. y must be a fresh handle, not one of the inputs.
template <class InputRange, class Rule>
Tensor record_range(const Op& op, Tensor y, const InputRange& inputs, Rule&& rule) {
  if (!is_floating(y.dtype()) || !detail::any_requires_grad(inputs)) return y;
  const auto node = detail::make_node(op, inputs, std::forward<Rule>(rule), 1);
  node->keep_output(y);
  detail::attach(y, *node, 0);
  return y;
}
template <class Rule>
Tensor record(const Op& op, Tensor y, Inputs inputs, Rule&& rule) {
  return record_range(op, std::move(y), inputs, std::forward<Rule>(rule));
}
// The same for an op with several outputs.
template <class InputRange, class Rule>
void record_outputs(const Op& op, std::span<const Tensor> outputs, const InputRange& inputs, Rule&& rule) {
  if (!detail::any_requires_grad(inputs)) return;
  const auto node = detail::make_node(op, inputs, std::forward<Rule>(rule), outputs.size());
  for (uint32_t i = 0; i < outputs.size(); ++i)
    if (is_floating(outputs[i].dtype())) detail::attach(outputs[i], *node, i);
}

}  // namespace loom::autograd
