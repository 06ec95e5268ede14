// The CUDA runtime with errors as exceptions.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include <loom/accelerators/error.h>

namespace loom::cuda {

[[noreturn]] void fail_cuda(cudaError_t status, const char* what);

inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) [[unlikely]]
    fail_cuda(status, what);
}

// Makes a device the current one of this thread for a scope.
class DeviceScope {
 public:
  explicit DeviceScope(int device) {
    check_cuda(cudaGetDevice(&previous_), "cudaGetDevice");
    if (previous_ != device) check_cuda(cudaSetDevice(device), "cudaSetDevice");
    changed_ = previous_ != device;
  }
  ~DeviceScope() {
    if (changed_) (void)cudaSetDevice(previous_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

// Without timing: recording one costs little.
std::shared_ptr<void> new_event();

// Whether the stream is being captured into a graph: the host must not wait then.
bool is_capturing(cudaStream_t stream);

// The number of the capture that a stream takes part in; 0: none.
uint64_t capture_of(cudaStream_t stream);

// For a scope, this thread may ask the driver for what has nothing to do with the graph that it captures: memory, the
// state of other streams' events.
class CaptureRelaxed {
 public:
  CaptureRelaxed() { check_cuda(cudaThreadExchangeStreamCaptureMode(&mode_), "cudaThreadExchangeStreamCaptureMode"); }
  ~CaptureRelaxed() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  CaptureRelaxed(const CaptureRelaxed&) = delete;
  CaptureRelaxed& operator=(const CaptureRelaxed&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace loom::cuda
