// The door to the CUDA accelerator; what stands behind it is chosen by the build.
#pragma once

namespace loom {

class Accelerator;

Accelerator& cuda_accelerator(int index);  // throws Error when there is none
int cuda_device_count();                   // 0 when the build or the machine has none

}  // namespace loom
