// What a device is: its name, its memory, how fast it can be.
#pragma once

#include <cstdint>
#include <string>

#include <loom/accelerators/device.h>
#include <loom/accelerators/dtype.h>

namespace loom {

struct DeviceProperties {
  std::string name;             // "NVIDIA H200"; of the CPU, the processor's
  std::string id;               // tells the GPUs of a machine apart, whatever their numbers; empty for the CPU
  int64_t memory = 0;           // bytes: the GPU's, or what the process may use of the host's
  int multiprocessors = 0;      // of the CPU: cores that the process may use
  int major = 0, minor = 0;     // compute capability; 0 for the CPU
  double clock = 0;             // Hz, the highest that the multiprocessors run at; 0: not known
  double memory_bandwidth = 0;  // bytes a second, what the memory's clock and width allow; 0: not known

  // Floating-point operations a second (a multiply-add counts as two) at the highest clock, dense, by tensor cores
  // where the dtype has them; tf32: products of f32 rounded to TF32. 0: not known (the CPU, other dtypes, devices
  // newer than this table). Data sheets count with a lower clock: an H100 has 989e12 for bf16 there, 1071e12 here.
  // Of GeForce cards the real one is half of it, as they add halves in f32 at half rate.
  double peak_flops(DType dtype, bool tf32 = false) const;
};

DeviceProperties device_properties(Device device = {});

}  // namespace loom
