// Stands in for the CUDA accelerator in a build without it.
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/error.h>

namespace loom {

Accelerator& cuda_accelerator(int index) { fail("device cuda:", index, ": this build of Loom has no CUDA"); }

int cuda_device_count() { return 0; }

}  // namespace loom
