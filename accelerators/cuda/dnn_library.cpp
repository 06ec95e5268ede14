#include <loom/accelerators/cuda/dnn_library.h>

#include <cstdlib>
#include <string_view>

#include <loom/accelerators/cuda/dnn_plan.h>

namespace loom::cuda {

namespace {

bool is_off() {
  const char* const text = std::getenv("LOOM_CUDNN");
  return text != nullptr && std::string_view(text) == "0";
}

}  // namespace

size_t dnn_version() {
  static const size_t version = is_off() || !dnn().missing.empty() ? 0 : dnn().version();
  return version;
}

std::string dnn_library() {
  const size_t version = dnn_version();
  if (version != 0) return str("cuDNN ", version / 10000, ".", version / 100 % 100, ".", version % 100);
  return str("no cuDNN: ", is_off() ? "LOOM_CUDNN=0" : dnn().missing.c_str());
}

DnnHandle new_dnn_handle() {
  cudnnHandle_t handle = nullptr;
  check_dnn(dnn().create(&handle), "cudnnCreate");
  return handle;
}

std::vector<std::shared_ptr<const Plan>> plans_of(const Graph& graph, DnnHandle handle, const DnnRules& rules,
                                                  size_t most) {
  return make_plans(graph, {.handle = handle}, rules, most);
}

size_t workspace_of(const Plan& plan) { return static_cast<size_t>(plan.workspace); }

void run_plan(const Plan& plan, DnnHandle handle, cudaStream_t stream, std::span<void* const> memory, void* workspace) {
  std::vector<int64_t> uids = plan.memory;
  std::vector<void*> pointers(memory.begin(), memory.end());
  std::vector<float> numbers;  // read by the library during the call
  numbers.reserve(plan.numbers.size());
  for (const auto& [uid, value] : plan.numbers) {
    uids.push_back(uid);
    pointers.push_back(&numbers.emplace_back(value));
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.put(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, std::span<const int64_t>(uids));
  pack.put(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::span<void* const>(pointers));
  pack.put(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  pack.finalize();
  check_dnn(dnn().set_stream(handle, stream), "cudnnSetStream");
  check_dnn(dnn().execute(handle, plan.plan.get(), pack.get()), "cudnnBackendExecute");
}

}  // namespace loom::cuda
