#include <loom/accelerators/cuda/dnn.h>

#include <cstdlib>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <loom/accelerators/cuda/dnn_plan.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom::cuda {

// A handle of the library with the plans made by it: used by one thread at a time. Never destroyed.
struct DnnContext {
  static constexpr size_t most_plans = 4096;
  cudnnHandle_t handle = nullptr;
  std::unordered_map<std::string, std::shared_ptr<const Plan>> plans;

  explicit DnnContext(const Gpu& gpu) {
    const DeviceScope scope(gpu.index());
    const CaptureRelaxed relaxed;
    check_dnn(cudnnCreate(&handle), "cudnnCreate");
  }
};

namespace {

// A device's contexts that nobody uses; the one that was used last is used next.
struct Contexts {
  std::mutex mutex;
  std::vector<DnnContext*> idle;
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

}  // namespace

size_t dnn_version() {
  static const size_t version = [] {
    const char* const text = std::getenv("LOOM_CUDNN");
    return text != nullptr && std::string_view(text) == "0" ? 0 : cudnnGetVersion();
  }();
  return version;
}

PlanUse::PlanUse(Gpu& gpu, const std::string& key, const DnnRules& rules, const std::function<Graph()>& make)
    : gpu_(gpu) {
  if (dnn_version() == 0) return;
  context_ = take_context(gpu);
  auto& plans = context_->plans;
  if (const auto found = plans.find(key); found != plans.end()) {
    plan_ = found->second.get();
    return;
  }
  if (plans.size() >= DnnContext::most_plans) plans.clear();
  try {
    const DeviceScope scope(gpu.index());
    const CaptureRelaxed relaxed;
    plan_ = (plans[key] = make_plan(make(), {.handle = context_->handle}, rules)).get();
  } catch (...) {
    plans.erase(key);
    put_back(gpu, context_);
    throw;
  }
}

PlanUse::~PlanUse() {
  if (context_ != nullptr) put_back(gpu_, context_);
}

void PlanUse::run(std::span<void* const> memory) const {
  const Scratch workspace(gpu_, static_cast<size_t>(plan_->workspace));
  std::vector<int64_t> uids = plan_->memory;
  std::vector<void*> pointers(memory.begin(), memory.end());
  std::vector<float> numbers;  // read by the library during the call
  numbers.reserve(plan_->numbers.size());
  for (const auto& [uid, value] : plan_->numbers) {
    uids.push_back(uid);
    pointers.push_back(&numbers.emplace_back(value));
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.put(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, std::span<const int64_t>(uids));
  pack.put(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::span<void* const>(pointers));
  pack.put(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace.as<void>());
  pack.finalize();
  const DeviceScope scope(gpu_.index());
  check_dnn(cudnnSetStream(context_->handle, gpu_.stream()), "cudnnSetStream");
  check_dnn(cudnnBackendExecute(context_->handle, plan_->plan.get(), pack.get()), "cudnnBackendExecute");
}

}  // namespace loom::cuda
