#include <loom/accelerators/cuda/dnn.h>

#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include <loom/accelerators/cuda/dnn_library.h>
#include <loom/accelerators/cuda/precision.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/scratch.h>
#include <loom/accelerators/cuda/timed.h>
#include <loom/accelerators/quickest.h>

namespace loom::cuda {

// Memory that a graph is given.
struct Given {
  size_t bytes = 0;
  bool written = false;
};

// What is known of a graph.
struct Planned {
  std::vector<std::shared_ptr<const Plan>> ways;  // to compute it, the library's best first; the chosen one alone
  std::vector<Given> memory;
  size_t asked = 0;     // for so many ways
  bool chosen = false;  // for good
};

// A handle of the library with the plans made by it: used by one thread at a time. Never destroyed.
struct DnnContext {
  // Only programs whose shapes never come back, as sequences of any length, reach this many. All go then: plans that
  // are still in use are made once more in thousands of calls, which no record of who was used last would be worth.
  static constexpr size_t most_plans = 4096;
  static constexpr size_t most_ways = 10;
  DnnHandle handle = nullptr;
  std::unordered_map<std::string, Planned> plans;
  std::set<std::shared_ptr<const Plan>> captured;  // recorded graphs may hold their kernels

  explicit DnnContext(const Gpu& gpu) {
    const DeviceScope scope(gpu.index());
    const CaptureRelaxed relaxed;
    handle = new_dnn_handle();
  }
};

namespace {

// A device's contexts that nobody uses; the one that was used last is used next. What one has chosen holds for all.
struct Contexts {
  std::mutex mutex;
  std::vector<DnnContext*> idle;
  std::unordered_map<std::string, size_t> choices;
};

Contexts& contexts_of(const Gpu& gpu) {
  static std::mutex mutex;
  static std::vector<Contexts*> made;
  const std::lock_guard lock(mutex);
  const auto at = static_cast<size_t>(gpu.index());
  if (made.size() <= at) made.resize(at + 1);
  if (made[at] == nullptr) made[at] = new Contexts();
  return *made[at];
}

DnnContext* take_context(const Gpu& gpu) {
  Contexts& contexts = contexts_of(gpu);
  {
    const std::lock_guard lock(contexts.mutex);
    if (!contexts.idle.empty()) {
      DnnContext* const last = contexts.idle.back();
      contexts.idle.pop_back();
      return last;
    }
  }
  return new DnnContext(gpu);
}

void put_back(const Gpu& gpu, DnnContext* context) {
  Contexts& contexts = contexts_of(gpu);
  const std::lock_guard lock(contexts.mutex);
  contexts.idle.push_back(context);
}

std::vector<Given> memory_of(const Graph& graph) {
  std::vector<Given> out;
  for (size_t i = 0; i < graph.tensors.size(); ++i) {
    const GraphTensor& t = graph.tensors[i];
    if (t.kind != GraphTensor::Kind::memory) continue;
    int64_t last = 0;
    for (int d = 0; d < t.shape.size(); ++d) last += (t.shape[d] - 1) * t.strides[d];
    Given& given = out.emplace_back(Given{static_cast<size_t>(last + 1) * item_size(t.dtype)});
    for (const GraphNode& node : graph.nodes) given.written = given.written || static_cast<size_t>(node.y) == i;
  }
  return out;
}

// Whether what is read would be another thing after a run.
bool changes_inputs(const std::vector<Given>& all, std::span<void* const> memory) {
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < all.size(); ++j) {
      const auto *const read = static_cast<char*>(memory[i]), *const written = static_cast<char*>(memory[j]);
      if (!all[i].written && all[j].written && read < written + all[j].bytes && written < read + all[i].bytes)
        return true;
    }
  return false;
}

// Asks the library for what has not been asked yet: for all its proposals where they may be timed.
void plan(Gpu& gpu, DnnContext& context, const std::string& key, Planned& planned, const DnnRules& rules,
          const std::function<Graph()>& make) {
  if (planned.chosen) return;
  const size_t wanted = autotunes() && !is_captured(gpu) ? DnnContext::most_ways : 1;
  if (planned.asked >= wanted) return;
  const DeviceScope scope(gpu.index());
  const CaptureRelaxed relaxed;
  const Graph graph = make();
  planned.ways = plans_of(graph, context.handle, rules, wanted);
  planned.memory = memory_of(graph);
  planned.asked = wanted;
  if (wanted == 1) return;
  Contexts& contexts = contexts_of(gpu);
  const std::lock_guard lock(contexts.mutex);
  const auto known = contexts.choices.find(key);
  if (known != contexts.choices.end() && known->second < planned.ways.size())
    planned.ways = {planned.ways[known->second]};
  planned.chosen = planned.ways.size() <= 1;
}

}  // namespace

PlanUse::PlanUse(Gpu& gpu, const std::string& key, const DnnRules& rules, const std::function<Graph()>& make)
    : gpu_(gpu) {
  if (dnn_version() == 0) return;
  context_ = take_context(gpu);
  try {
    auto& plans = context_->plans;
    if (plans.size() >= DnnContext::most_plans && !plans.contains(key)) plans.clear();
    planned_ = &*plans.try_emplace(key).first;
    plan(gpu, *context_, key, planned_->second, rules, make);
  } catch (...) {
    put_back(gpu, context_);
    throw;
  }
}

PlanUse::~PlanUse() {
  if (context_ != nullptr) put_back(gpu_, context_);
}

PlanUse::operator bool() const { return planned_ != nullptr && !planned_->second.ways.empty(); }

void PlanUse::start(size_t way, std::span<void* const> memory) const {
  const Plan& plan = *planned_->second.ways[way];
  const Scratch workspace(gpu_, workspace_of(plan));
  const DeviceScope scope(gpu_.index());
  run_plan(plan, context_->handle, gpu_.stream(), memory, workspace.as<void>());
}

// By the clock. Where none can be timed, the library's best stays: what is wrong with it, its run tells.
void PlanUse::choose(std::span<void* const> memory) const {
  auto& [key, planned] = *planned_;
  const size_t best =
      quickest(planned.ways.size(), [&](size_t way) { return timed(gpu_, [&] { start(way, memory); }); }).value_or(0);
  planned.ways = {planned.ways[best]};
  planned.chosen = true;
  Contexts& contexts = contexts_of(gpu_);
  const std::lock_guard lock(contexts.mutex);
  if (contexts.choices.size() >= DnnContext::most_plans) contexts.choices.clear();
  contexts.choices[key] = best;
}

void PlanUse::run(std::span<void* const> memory) const {
  Planned& planned = planned_->second;
  if (is_captured(gpu_))
    context_->captured.insert(planned.ways.front());
  else if (!planned.chosen && planned.ways.size() > 1 && !changes_inputs(planned.memory, memory))
    choose(memory);
  start(0, memory);
}

}  // namespace loom::cuda
