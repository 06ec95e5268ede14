// In place of cuDNN where it is not there when Loom is built.
#include <loom/accelerators/cuda/dnn.h>

namespace loom::cuda {

size_t dnn_version() { return 0; }

PlanUse::PlanUse(Gpu& gpu, const std::string&, const DnnRules&, const std::function<Graph()>&) : gpu_(gpu) {}
PlanUse::~PlanUse() = default;
void PlanUse::run(std::span<void* const>) const { fail("cuda:", gpu_.index(), ": built without cuDNN"); }

}  // namespace loom::cuda
