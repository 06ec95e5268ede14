// What libloom_cuda.so hands over to the library that loads it.
#include <loom/accelerators/cuda.h>

#include <mutex>
#include <vector>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda_abi.h>

namespace loom {

namespace {

// Never destroyed, as its memory may be released while the process ends.
Accelerator* device(int index) {
  static std::mutex mutex;
  static std::vector<Cuda*> made;
  const std::lock_guard lock(mutex);
  const auto at = static_cast<size_t>(index);
  if (made.size() <= at) made.resize(at + 1);
  if (made[at] == nullptr) made[at] = new Cuda(index);
  return made[at];
}

}  // namespace

}  // namespace loom

extern "C" [[gnu::visibility("default")]] void loom_cuda_devices(loom::CudaPlugin& plugin) {
  plugin.abi = loom::interface_digest(LOOM_INTERFACE);
  plugin.devices = loom::cuda::count_devices(plugin.description);
  plugin.device = &loom::device;
}
