// The CUDA runtime with errors as exceptions.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <new>

#include <loom/accelerators/error.h>

namespace loom::cuda {

[[noreturn]] void fail_cuda(cudaError_t status, const char* what);

inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) [[unlikely]]
    fail_cuda(status, what);
}

// Whether the process has a context on the device: hundreds of megabytes of its memory. Asking makes none.
bool has_context(int device);

// Makes a device the current one of this thread for a scope, and of what follows where the one before has no context:
// going back to it would make one, as almost every call of the runtime does. A thread begins with device 0, and a rank
// with another one leaves that alone.
class DeviceScope {
 public:
  explicit DeviceScope(int device) { check_cuda(enter(device), "cudaSetDevice"); }
  // Where nobody can be told: what follows fails, and is let be.
  DeviceScope(int device, std::nothrow_t) noexcept { (void)enter(device); }
  ~DeviceScope() {
    if (changed_ && has_context(previous_)) (void)cudaSetDevice(previous_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  cudaError_t enter(int device) {
    if (const cudaError_t status = cudaGetDevice(&previous_); status != cudaSuccess) return status;
    if (previous_ == device) return cudaSuccess;
    changed_ = true;
    return cudaSetDevice(device);
  }

  int previous_ = 0;
  bool changed_ = false;
};

// On the current device. Without timing: recording one costs little.
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
