// What libloom_cuda.so hands over to the library that loads it.
#include <loom/accelerators/cuda.h>

#include <iostream>
#include <mutex>
#include <utility>
#include <vector>

#include <loom/accelerators/cuda/bus_id.h>
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dnn.h>
#include <loom/accelerators/cuda/matmul.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/watch.h>
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

std::string libraries() {
  int runtime = 0;
  cuda::check_cuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return str("CUDA runtime ", runtime / 1000, ".", runtime % 1000 / 10, ", ", cuda::matmul_library(), ", ",
             cuda::dnn_library());
}

// When the library goes, after everything that the program itself has made. The device is not asked any more.
[[gnu::destructor]] void tell_of_leaks() {
  for (const cuda::Gpu* const gpu : cuda::gpus_in_use()) {
    const std::string left = gpu->watch() != nullptr ? gpu->watch()->leaks() : "";
    if (!left.empty()) std::cerr << str("loom: memory of cuda:", gpu->index(), ": ", left, "\n");
  }
}

}  // namespace

}  // namespace loom

extern "C" [[gnu::visibility("default")]] void loom_cuda_devices(loom::CudaPlugin& plugin) {
  const uint64_t abi = loom::interface_digest(LOOM_INTERFACE);
  if (std::exchange(plugin.abi, abi) != abi) return;
  plugin.devices = loom::cuda::count_devices(plugin.description);
  for (int i = 0; i < plugin.devices; ++i) plugin.ids.push_back(loom::cuda::bus_id(i));
  plugin.libraries = loom::libraries();
  plugin.device = &loom::device;
}
