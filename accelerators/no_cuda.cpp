// Stands in for the CUDA accelerator in a build without it.
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/error.h>

namespace loom {

Accelerator& cuda_accelerator(int index) { fail("device cuda:", index, ": ", cuda_description()); }

int cuda_device_count() { return 0; }

const std::string& cuda_description() {
  static const std::string text = "this build of Loom has no CUDA; configure with -DLOOM_CUDA=ON";
  return text;
}

}  // namespace loom
