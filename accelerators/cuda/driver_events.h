// Events of the driver, as pools of memory wait for them.
#pragma once

#include <cuda_runtime_api.h>

#include <loom/accelerators/block_pool.h>
#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

// The stream's device is the current one.
inline BlockSource::Event record_event(cudaStream_t stream) {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  check_cuda(cudaEventRecord(event, stream), "cudaEventRecord");
  return event;
}

// Of one device; without a number, of any.
class DriverEvents : public BlockSource {
 public:
  explicit DriverEvents(int device = -1) : device_(device) {}
  bool is_done(Event event) override {
    const DeviceScope scope(device());
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
    const DeviceScope scope(device());
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "cudaEventSynchronize");
  }
  void drop(Event event) noexcept override {
    const DeviceScope scope(device(), std::nothrow);
    (void)cudaEventDestroy(static_cast<cudaEvent_t>(event));
  }

 protected:
  // That calls are made on.
  int device() const { return device_ >= 0 ? device_ : device_in_use(); }

 private:
  int device_;
};

}  // namespace loom::cuda
