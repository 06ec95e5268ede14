// The door to the CUDA accelerator; what stands behind it is chosen by the build.
#pragma once

#include <cstdint>
#include <string>

namespace loom {

class Accelerator;

Accelerator& cuda_accelerator(int index);  // throws Error when there is none
int cuda_device_count();                   // 0 when the build or the machine has none
// "NVIDIA H200, NVIDIA H200; driver 13.0", or why there is none.
const std::string& cuda_description();

// What the plugin libloom_cuda.so hands over by its entry `loom_cuda_devices`.
struct CudaPlugin {
  uint64_t abi = 0;  // of what it was compiled against (cuda_abi.h): must equal the library's
  int devices = 0;
  std::string description;
  Accelerator* (*device)(int index) = nullptr;
};
using CudaEntry = void (*)(CudaPlugin&);

}  // namespace loom
