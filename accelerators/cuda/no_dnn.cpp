// In place of cuDNN where it is not there when Loom is built.
#include <loom/accelerators/cuda/dnn_library.h>

namespace loom::cuda {

size_t dnn_version() { return 0; }
std::string dnn_library() { return "no cuDNN: built without it"; }

DnnHandle new_dnn_handle() { fail(dnn_library()); }
std::vector<std::shared_ptr<const Plan>> plans_of(const Graph&, DnnHandle, const DnnRules&, size_t) { return {}; }
size_t workspace_of(const Plan&) { return 0; }
void run_plan(const Plan&, DnnHandle, cudaStream_t, std::span<void* const>, void*) { fail(dnn_library()); }

}  // namespace loom::cuda
