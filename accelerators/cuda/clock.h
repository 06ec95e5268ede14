// The time of one GPU: events that tell when they happened, used again and again.
#pragma once

#include <cuda_runtime_api.h>

#include <mutex>
#include <vector>

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/device_clock.h>

namespace loom {

// Never destroyed, as the accelerator that has it: moments come back while the process ends.
class CudaClock final : public DeviceClock {
 public:
  explicit CudaClock(cuda::Gpu& gpu) : gpu_(gpu) {}
  std::shared_ptr<void> record(void* stream) override;
  std::optional<double> milliseconds(void* from, void* to, bool wait) override;

 private:
  cudaEvent_t take();
  void give_back(cudaEvent_t event);

  cuda::Gpu& gpu_;
  std::mutex mutex_;
  std::vector<cudaEvent_t> free_;
};

}  // namespace loom
