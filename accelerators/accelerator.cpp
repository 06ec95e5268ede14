#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cpu.h>
#include <loom/accelerators/cuda.h>

namespace loom {

Accelerator& accelerator(Device device) {
  return device.kind == Device::cpu ? cpu_accelerator() : cuda_accelerator(device.index);
}

int device_count(Device::Kind kind) { return kind == Device::cpu ? 1 : cuda_device_count(); }

MemoryStats memory_stats(Device device) { return accelerator(device).memory_stats(); }
void reset_peak_memory_stats(Device device) { accelerator(device).reset_peak_memory_stats(); }
void empty_cache(Device device) { accelerator(device).empty_cache(); }
MemoryStats pinned_memory_stats(Device device) { return accelerator(device).pinned_memory_stats(); }

DeviceProperties device_properties(Device device) { return accelerator(device).properties(); }

}  // namespace loom
