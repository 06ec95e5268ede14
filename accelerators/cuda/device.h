// One GPU: its streams, its memory, and what its kernels have found wrong.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <shared_mutex>
#include <string>
#include <vector>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/block_pool.h>
#include <loom/accelerators/cuda/fault.h>
#include <loom/accelerators/device_properties.h>

namespace loom::cuda {

class Watch;

// All that kernels ask of the machine. Never destroyed: memory may be released while the process ends.
class Gpu {
 public:
  explicit Gpu(int index);
  ~Gpu();
  int index() const { return index_; }
  const cudaDeviceProp& properties() const { return properties_; }
  int multiprocessors() const { return properties_.multiProcessorCount; }
  DeviceProperties described() const;

  cudaStream_t lane(Lane lane) const { return lanes_[static_cast<size_t>(lane)]; }
  cudaStream_t stream() const;  // this thread's
  void set_stream(cudaStream_t stream);
  cudaStream_t aside() const { return aside_; }  // for what is done once while a graph is captured

  // In this thread's stream; bytes > 0. Throws OutOfMemory.
  void* allocate(size_t bytes);
  void release(void* block) noexcept;
  void use_by(void* block, cudaStream_t stream);
  BlockPool& memory() { return *memory_; }             // where all of them come from
  const Watch* watch() const { return watch_.get(); }  // null unless LOOM_POISON=1

  Fault* fault() const { return fault_device_; }
  void check_faults();          // the device has been waited for: throws what it has left
  void check_may_wait() const;  // throws while this thread's stream is captured, and where sync_debug.h forbids it
  // Throws while a graph is captured: the driver waits for no device then, and the question would spoil the capture.
  void synchronize();

  // A capture by any thread; one at a time, or an Error.
  void begin_capture();
  void end_capture();
  bool is_captured() const;

 private:
  int index_;
  cudaDeviceProp properties_{};
  std::array<cudaStream_t, 3> lanes_{};
  cudaStream_t aside_ = nullptr;
  std::unique_ptr<BlockSource> source_;
  std::unique_ptr<BlockPool> memory_;
  std::unique_ptr<Watch> watch_;
  Fault* fault_host_ = nullptr;
  Fault* fault_device_ = nullptr;
  mutable std::shared_mutex capturing_;  // held while somebody waits for the whole device: no capture begins then
  bool captured_ = false;
};

int count_devices(std::string& description);
Gpu& gpu(int index);
std::vector<Gpu*> gpus_in_use();
// For calls that concern none in particular: this thread's device where it has a context, else the first in use.
int device_in_use() noexcept;

}  // namespace loom::cuda
