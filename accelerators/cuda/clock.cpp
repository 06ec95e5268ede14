#include <loom/accelerators/cuda/clock.h>

#include <loom/accelerators/cuda/runtime.h>

namespace loom {

cudaEvent_t CudaClock::take() {
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      const cudaEvent_t event = free_.back();
      free_.pop_back();
      return event;
    }
  }
  cudaEvent_t event = nullptr;
  cuda::check_cuda(cudaEventCreateWithFlags(&event, cudaEventDefault), "cudaEventCreate");
  return event;
}

void CudaClock::give_back(cudaEvent_t event) {
  const std::lock_guard lock(mutex_);
  free_.push_back(event);
}

std::shared_ptr<void> CudaClock::record(void* stream) {
  const cuda::DeviceScope scope(gpu_.index());
  const cuda::CaptureRelaxed relaxed;  // of another stream
  auto* const in = static_cast<cudaStream_t>(stream);
  if (cuda::is_capturing(in)) return nullptr;
  std::shared_ptr<void> event(take(), [this](void* e) { give_back(static_cast<cudaEvent_t>(e)); });
  cuda::check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event.get()), in), "cudaEventRecord");
  return event;
}

std::optional<double> CudaClock::milliseconds(void* from, void* to, bool wait) {
  const cuda::DeviceScope scope(gpu_.index());  // another thread's may have no context, which the driver would make
  const cuda::CaptureRelaxed relaxed;
  auto* const first = static_cast<cudaEvent_t>(from);
  auto* const second = static_cast<cudaEvent_t>(to);
  if (wait) {
    for (auto* const event : {first, second}) cuda::check_cuda(cudaEventSynchronize(event), "cudaEventSynchronize");
  }
  float out = 0;
  const cudaError_t status = cudaEventElapsedTime(&out, first, second);
  if (status == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return std::nullopt;
  }
  cuda::check_cuda(status, "cudaEventElapsedTime");
  return static_cast<double>(out);
}

}  // namespace loom
