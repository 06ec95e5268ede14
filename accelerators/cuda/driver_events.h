// Events of the driver, as pools of memory wait for them.
#pragma once

#include <cuda_runtime_api.h>

#include <loom/accelerators/block_pool.h>
#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

// The stream's device is the current one.
inline BlockSource::Event record_event(cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  check_cuda(cudaEventRecord(event, stream), "cudaEventRecord");
  return event;
}

class DriverEvents : public BlockSource {
 public:
  bool is_done(Event event) override {
    const CaptureRelaxed relaxed;
    const cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (status == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    check_cuda(status, "cudaEventQuery");
    return true;
  }
  void wait(Event event) override {
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "cudaEventSynchronize");
  }
  void drop(Event event) noexcept override { (void)cudaEventDestroy(static_cast<cudaEvent_t>(event)); }
};

}  // namespace loom::cuda
