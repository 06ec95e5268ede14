#include <loom/accelerators/cuda/pinned.h>

#include <loom/accelerators/cuda/driver_events.h>
#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

namespace {

class PinnedSource final : public DriverEvents {
 public:
  void* allocate(size_t bytes) override {
    const DeviceScope scope(device());
    const CaptureRelaxed relaxed;
    void* memory = nullptr;
    const cudaError_t status = cudaHostAlloc(&memory, bytes, cudaHostAllocPortable);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      return nullptr;
    }
    check_cuda(status, "cudaHostAlloc");
    return memory;
  }
  void release(void* segment) noexcept override {
    const DeviceScope scope(device(), std::nothrow);
    (void)cudaFreeHost(segment);
  }
  Event record(void* stream) override { return record_event(static_cast<cudaStream_t>(stream)); }
};

}  // namespace

PinnedPool& pinned_memory() {
  static auto* const source = new PinnedSource;
  static auto* const pool = new PinnedPool(*source);  // never destroyed: memory may be released while the process ends
  return *pool;
}

}  // namespace loom::cuda
