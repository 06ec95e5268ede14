// One GPU: its streams, its memory, and what its kernels have found wrong.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <string>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/block_pool.h>
#include <loom/accelerators/cuda/fault.h>

namespace loom::cuda {

// All that kernels ask of the machine. Never destroyed: memory may be released while the process ends.
class Gpu {
 public:
  explicit Gpu(int index);
  int index() const { return index_; }
  const cudaDeviceProp& properties() const { return properties_; }
  int multiprocessors() const { return properties_.multiProcessorCount; }

  cudaStream_t lane(Lane lane) const { return lanes_[static_cast<size_t>(lane)]; }
  cudaStream_t stream() const;  // this thread's
  void set_stream(cudaStream_t stream);

  BlockPool& memory() { return *memory_; }

  Fault* fault() const { return fault_device_; }
  void check_faults();  // the device has been waited for: throws what it has left
  void synchronize();

 private:
  int index_;
  cudaDeviceProp properties_{};
  std::array<cudaStream_t, 3> lanes_{};
  std::unique_ptr<BlockSource> source_;
  std::unique_ptr<BlockPool> memory_;
  Fault* fault_host_ = nullptr;
  Fault* fault_device_ = nullptr;
};

int count_devices(std::string& description);
Gpu& gpu(int index);

}  // namespace loom::cuda
