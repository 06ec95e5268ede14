// One differentiation under way: the engine's inside.
#pragma once

#include <functional>
#include <memory>
#include <queue>
#include <unordered_map>
#include <utility>
#include <vector>

#include <loom/autograd/graph.h>

namespace loom::autograd {

// One differentiation under way. Notes in nodes and leaves belong to the run whose address they carry; they are wiped
// at the end, also when a rule throws. A run inside another's rule (a recomputed region that calls grad()) may reach
// the same leaves: the outer notes are put back.
class Run {
 public:
  Run(bool retain, bool create, bool accumulate) : retain_(retain), create_(create), accumulate_(accumulate) {}
  ~Run() {
    for (Node* const node : visited_) {
      node->run = nullptr;
      if (!finished_) node->incoming.reset();
    }
    for (Noted& noted : leaves_) {
      noted.leaf->run = noted.run;
      noted.leaf->pending = noted.pending;
      noted.leaf->incoming = std::move(noted.incoming);
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

  Destination destination(size_t input) const;
  bool retains() const { return retain_; }

  static Run* current() { return current_; }  // of this thread
  void become_current() { current_ = this; }
  const char* op_name = "backward";

 private:
  struct Noted {
    std::shared_ptr<Meta> leaf;
    const void* run;  // what an outer run has noted
    int pending;
    Tensor incoming;
  };
  // Nodes that have all their gradients, the latest first. In a chain there is only ever one: it stays out of the heap.
  class Ready {
   public:
    void push(Node* node) {
      if (next_ == nullptr ? heap_.empty() || Earlier()(heap_.top(), node) : Earlier()(next_, node))
        std::swap(next_, node);
      if (node != nullptr) heap_.push(node);
    }
    Node* pop() {  // null: there is none
      if (next_ != nullptr || heap_.empty()) return std::exchange(next_, nullptr);
      Node* const node = heap_.top();
      heap_.pop();
      return node;
    }

   private:
    struct Earlier {
      bool operator()(const Node* a, const Node* b) const { return a->sequence < b->sequence; }
    };
    Node* next_ = nullptr;  // later than all of the heap
    std::priority_queue<Node*, std::vector<Node*>, Earlier> heap_;
  };

  void visit(Node& node);
  void visit_leaf(const std::shared_ptr<Meta>& leaf);
  void discover();
  void mark_needed();
  void process(Node& node);
  void run_output_hooks(Node& node);
  void propagate(Node& node);
  void deliver(Edge& edge, Tensor&& gradient);
  void settle(const Edge& edge);
  void finish_leaf(const std::shared_ptr<Meta>& leaf);
  void add_into(Tensor& sum, Tensor&& gradient) const;

  const bool retain_, create_, accumulate_;
  const Node* running_ = nullptr;  // the node whose rule runs
  Run* const outer_ = current_;
  std::vector<Ref<Node>> roots_;  // keep all that they reach alive
  std::vector<Node*> visited_;
  std::vector<Noted> leaves_;
  Ready ready_;
  bool finished_ = false;
  std::unordered_map<const Node*, std::vector<std::pair<uint32_t, size_t>>> node_captures_;
  std::unordered_map<const Meta*, std::vector<size_t>> leaf_captures_;
  [[gnu::tls_model("initial-exec")]] static thread_local constinit Run* current_;
};

}  // namespace loom::autograd
