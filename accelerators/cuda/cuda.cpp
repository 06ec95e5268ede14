// Memory and streams of the accelerator.
#include <loom/accelerators/cuda/cuda.h>

#include <loom/accelerators/cuda/runtime.h>

namespace loom {

namespace {

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

}  // namespace

void* Cuda::allocate(size_t bytes) { return bytes == 0 ? nullptr : gpu_.memory().allocate(bytes, gpu_.stream()); }

void Cuda::release(void* block) noexcept {
  if (block != nullptr) gpu_.memory().release(block);
}

MemoryStats Cuda::memory_stats() const { return gpu_.memory().stats(); }
void Cuda::reset_peak_memory_stats() { gpu_.memory().reset_peak(); }
void Cuda::empty_cache() { gpu_.memory().empty_cache(); }

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
  const cudaError_t status = cudaEventQuery(event_of(event));
  if (status == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  cuda::check_cuda(status, "is_done");
  return true;
}

void Cuda::wait(void* event) {
  cuda::check_cuda(cudaEventSynchronize(event_of(event)), "synchronize");
  gpu_.check_faults();
}

void Cuda::synchronize() { gpu_.synchronize(); }

void Cuda::use_by(void* block, void* stream) { gpu_.memory().use_by(block, stream); }

}  // namespace loom
