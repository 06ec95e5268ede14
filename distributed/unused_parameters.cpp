#include <loom/distributed/unused_parameters.h>

#include <algorithm>
#include <unordered_set>

#include <loom/autograd/graph.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

namespace loom {

LeafFinder::LeafFinder(std::span<const NamedTensor> leaves) {
  for (size_t i = 0; i < leaves.size(); ++i) index_.emplace(leaves[i].tensor.body().meta.get(), i);
}

// Iteratively: graphs are deep.
std::vector<bool> LeafFinder::reached_from(std::span<const Tensor> outputs) const {
  std::vector<bool> reached(index_.size(), false);
  std::unordered_set<const autograd::Node*> seen;
  std::vector<const autograd::Node*> next;
  const auto visit = [&](const autograd::Node* node, const autograd::Meta* leaf) {
    if (node != nullptr && seen.insert(node).second) next.push_back(node);
    if (leaf == nullptr) return;
    if (const auto found = index_.find(leaf); found != index_.end()) reached[found->second] = true;
  };
  for (const Tensor& output : outputs)
    visit(output.body().node.get(), output.is_leaf() ? output.body().meta.get() : nullptr);
  while (!next.empty()) {
    const autograd::Node* const node = next.back();
    next.pop_back();
    for (const autograd::Edge& edge : node->inputs) visit(edge.node.get(), edge.leaf.get());
  }
  return reached;
}

void PendingForwards::add(const std::shared_ptr<ForwardPass>& forward) {
  std::erase_if(forwards_, [](const auto& weak) {
    const auto f = weak.lock();
    return !f || f->differentiated;
  });
  forwards_.push_back(forward);
}

std::vector<bool> PendingForwards::surely_unused(std::span<const std::shared_ptr<ForwardPass>> reached,
                                                 size_t parameters) const {
  std::vector<bool> unused(parameters, true);
  const auto count = [&](const ForwardPass& forward) {
    for (size_t i = 0; i < parameters; ++i)
      if (!forward.walked || forward.used[i]) unused[i] = false;
  };
  for (const auto& forward : reached) count(*forward);
  for (const auto& weak : forwards_)
    if (const auto forward = weak.lock(); forward && !forward->differentiated) count(*forward);
  return unused;
}

ParameterUse::ParameterUse(size_t parameters) : here_(parameters, 0), anywhere_(parameters, 0) {}

int ParameterUse::unused_here() const { return static_cast<int>(std::ranges::count(here_, 0)); }

void ParameterUse::exchange(Communicator& communicator) {
  check(context().capture == nullptr,
        "DDP: which parameters a step uses is asked of all ranks' hosts, which a captured step does not do again; use "
        "static_graph, and capture after the first steps, instead of find_unused_parameters");
  flags_ = from_vector(here_, {static_cast<int64_t>(here_.size())}, {DType::i32, Device()});
  work_ = communicator.all_reduce(flags_, ReduceOp::max);
}

bool ParameterUse::anywhere(int parameter) {
  if (here(parameter)) return true;
  finish();
  return anywhere_[static_cast<size_t>(parameter)] != 0;
}

void ParameterUse::finish() {
  if (!flags_.defined()) return;
  work_.wait();
  anywhere_ = flags_.to_vector<int32_t>();
  flags_ = Tensor();
}

void ParameterUse::clear() {
  std::ranges::fill(here_, 0);
  std::ranges::fill(anywhere_, 0);
}

}  // namespace loom
