// The door to the CUDA accelerator; what stands behind it is chosen by the build.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace loom {

class Accelerator;

Accelerator& cuda_accelerator(int index);  // throws Error when there is none
int cuda_device_count();                   // 0 when the build or the machine has none
// "NVIDIA H200, NVIDIA H200; driver 13.0", or why there is none.
const std::string& cuda_description();
// Of each device, what tells it apart from the machine's others (DeviceProperties::id); asks the device for nothing.
const std::vector<std::string>& cuda_device_ids();
bool cuda_was_built();                // there is a plugin, whatever became of it
const std::string& cuda_libraries();  // what the plugin has been loaded with; empty where there is none

// What the plugin libloom_cuda.so hands over by its entry `loom_cuda_devices`. abi: of what the library was compiled
// against, then of what the plugin was (cuda_abi.h); where they differ, the plugin fills in nothing else.
struct CudaPlugin {
  uint64_t abi = 0;
  int devices = 0;
  std::string description;
  Accelerator* (*device)(int index) = nullptr;
  std::vector<std::string> ids;
  std::string libraries;  // "CUDA runtime 13.0, cuBLASLt 13.1.0, cuDNN 9.19.0"
};
using CudaEntry = void (*)(CudaPlugin&);

}  // namespace loom
