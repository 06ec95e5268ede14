// Memory and streams of the accelerator.
#include <loom/accelerators/cuda/cuda.h>

#include <loom/accelerators/cuda/captured.h>
#include <loom/accelerators/cuda/pinned.h>
#include <loom/accelerators/cuda/runtime.h>

namespace loom {

namespace {

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

}  // namespace

DeviceProperties Cuda::properties() const { return gpu_.described(); }

void* Cuda::allocate(size_t bytes) { return bytes == 0 ? nullptr : gpu_.allocate(bytes); }
void Cuda::release(void* block) noexcept {
  if (block != nullptr) gpu_.release(block);
}

MemoryStats Cuda::memory_stats() const { return gpu_.memory().stats(); }
void Cuda::reset_peak_memory_stats() { gpu_.memory().reset_peak(); }
void Cuda::empty_cache() {
  if (gpu_.is_captured()) return;  // giving memory back makes the driver wait
  gpu_.memory().empty_cache();
  cuda::pinned_memory().empty_cache();
}

void* Cuda::allocate_pinned(size_t bytes) {
  const cuda::DeviceScope scope(gpu_.index());  // the driver asks for one
  return bytes == 0 ? nullptr : cuda::pinned_memory().allocate(bytes);
}
void Cuda::release_pinned(void* block) noexcept {
  if (block != nullptr) cuda::pinned_memory().release(block);
}
bool Cuda::is_pinned(const void* address) const { return cuda::pinned_memory().contains(address); }
MemoryStats Cuda::pinned_memory_stats() const { return cuda::pinned_memory().stats(); }

void* Cuda::stream(Lane lane) { return gpu_.lane(lane); }
void* Cuda::current_stream() { return gpu_.stream(); }
void Cuda::set_current_stream(void* stream) { gpu_.set_stream(stream_of(stream)); }

std::shared_ptr<void> Cuda::record(void* stream) {
  const cuda::DeviceScope scope(gpu_.index());
  std::shared_ptr<void> event = cuda::new_event();
  cuda::check_cuda(cudaEventRecord(event_of(event.get()), stream_of(stream)), "record");
  return event;
}

void Cuda::order(void* stream, void* event) {
  const cuda::DeviceScope scope(gpu_.index());
  cuda::check_cuda(cudaStreamWaitEvent(stream_of(stream), event_of(event)), "wait for an event");
}

bool Cuda::is_done(void* event) {
  const cuda::DeviceScope scope(gpu_.index());
  const cuda::CaptureRelaxed relaxed;
  const cudaError_t status = cudaEventQuery(event_of(event));
  if (status == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  cuda::check_cuda(status, "is_done");
  return true;
}

void Cuda::wait(void* event) {
  const cuda::DeviceScope scope(gpu_.index());
  gpu_.check_may_wait();
  cuda::check_cuda(cudaEventSynchronize(event_of(event)), "synchronize");
  gpu_.check_faults();
}

void Cuda::synchronize() { gpu_.synchronize(); }

std::unique_ptr<Captured> Cuda::capture() { return std::make_unique<cuda::CapturedGraph>(gpu_); }
bool Cuda::is_capturing() {
  const cuda::DeviceScope scope(gpu_.index());
  return cuda::is_capturing(gpu_.stream());
}

void Cuda::use_by(void* block, void* stream) { gpu_.use_by(block, stream_of(stream)); }

}  // namespace loom
