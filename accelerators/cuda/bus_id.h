// What tells the GPUs of a machine apart, whatever their numbers in this process.
#pragma once

#include <array>
#include <string>

#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

inline std::string bus_id(int device) {
  std::array<char, 64> id{};
  check_cuda(cudaDeviceGetPCIBusId(id.data(), static_cast<int>(id.size()), device), "cudaDeviceGetPCIBusId");
  return id.data();
}

}  // namespace loom::cuda
