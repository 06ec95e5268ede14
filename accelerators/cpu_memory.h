// Memory of the CPU: a caching allocator, one for the process, whichever instruction set the kernels are of.
#pragma once

#include <loom/accelerators/accelerator.h>

namespace loom {

class CpuMemory : public Accelerator {
 public:
  void* allocate(size_t bytes) override;
  void release(void* block) noexcept override;
  MemoryStats memory_stats() const override;
  void reset_peak_memory_stats() override;
  void empty_cache() override;
  DeviceProperties properties() const override;
};

}  // namespace loom
