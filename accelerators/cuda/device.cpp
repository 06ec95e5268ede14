#include <loom/accelerators/cuda/device.h>

#include <cstdlib>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

namespace {

class DriverMemory final : public BlockSource {
 public:
  explicit DriverMemory(int device) : device_(device) {}
  void* allocate(size_t bytes) override {
    const DeviceScope scope(device_);
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      return nullptr;
    }
    check_cuda(status, "cudaMalloc");
    return memory;
  }
  void release(void* segment) noexcept override { (void)cudaFree(segment); }
  Event record(void* stream) override {
    cudaEvent_t event = nullptr;
    const DeviceScope scope(device_);
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    check_cuda(cudaEventRecord(event, static_cast<cudaStream_t>(stream)), "cudaEventRecord");
    return event;
  }
  bool is_done(Event event) override {
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

 private:
  int device_;
};

size_t memory_limit() {
  const char* const text = std::getenv("LOOM_CUDA_MEMORY_LIMIT");
  if (text == nullptr) return 0;
  char* end = nullptr;
  const unsigned long long bytes = std::strtoull(text, &end, 10);
  check(*text != '\0' && *end == '\0', "LOOM_CUDA_MEMORY_LIMIT: expected a number of bytes, got '", text, "'");
  return bytes;
}

thread_local std::vector<cudaStream_t> streams;  // of this thread, by device; null: the compute lane

}  // namespace

Gpu::Gpu(int index) : index_(index) {
  const DeviceScope scope(index);
  check_cuda(cudaGetDeviceProperties(&properties_, index), "cudaGetDeviceProperties");
  int least = 0, greatest = 0;  // the greatest priority is the lowest number
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  for (const Lane lane : {Lane::compute, Lane::copy, Lane::communication})
    check_cuda(cudaStreamCreateWithPriority(&lanes_[static_cast<size_t>(lane)], cudaStreamNonBlocking,
                                            lane == Lane::communication ? greatest : least),
               "cudaStreamCreateWithPriority");
  source_ = std::make_unique<DriverMemory>(index);
  memory_ = std::make_unique<BlockPool>(*source_, str("cuda:", index), memory_limit());
  const char* const poison = std::getenv("LOOM_POISON");
  poisons_ = poison != nullptr && std::string_view(poison) == "1";
  void* host = nullptr;
  void* device = nullptr;
  check_cuda(cudaHostAlloc(&host, sizeof(Fault), cudaHostAllocMapped), "cudaHostAlloc");
  check_cuda(cudaHostGetDevicePointer(&device, host, 0), "cudaHostGetDevicePointer");
  fault_host_ = new (host) Fault;
  fault_device_ = static_cast<Fault*>(device);
}

cudaStream_t Gpu::stream() const {
  const auto at = static_cast<size_t>(index_);
  const cudaStream_t own = at < streams.size() ? streams[at] : nullptr;
  return own != nullptr ? own : lane(Lane::compute);
}

void Gpu::set_stream(cudaStream_t stream) {
  const auto at = static_cast<size_t>(index_);
  if (streams.size() <= at) streams.resize(at + 1);
  streams[at] = stream;
}

void Gpu::check_faults() {
  const auto kind = static_cast<FaultKind>(*static_cast<volatile int*>(&fault_host_->kind));
  if (kind == FaultKind::none) return;
  const Fault f = *fault_host_;
  *fault_host_ = Fault();
  if (kind == FaultKind::index)
    fail(f.op, ": index ", f.value, " is out of range for dimension ", f.at, " of size ", f.extent);
  if (kind == FaultKind::norm)
    fail(f.op,
         ": the norm of the gradients is not finite, so they cannot be scaled; set error_if_nonfinite=false to scale "
         "anyway");
  fail(f.op, ": target ", f.value, " at row ", f.at, " is out of range for ", f.extent, " classes (ignore_index is ",
       f.ignored, ")");
}

void Gpu::synchronize() {
  const DeviceScope scope(index_);
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  check_faults();
}

int count_devices(std::string& description) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    description = str("no CUDA device: ", cudaGetErrorString(status));
    return 0;
  }
  int driver = 0;
  check_cuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    check_cuda(cudaGetDeviceProperties(&p, i), "cudaGetDeviceProperties");
    description += str(i == 0 ? "" : ", ", static_cast<const char*>(p.name));
  }
  description = count == 0 ? "no CUDA device" : str(description, "; driver ", driver / 1000, '.', driver % 1000 / 10);
  return count;
}

Gpu& gpu(int index) {
  static std::mutex mutex;
  static std::vector<Gpu*> made;
  const std::lock_guard lock(mutex);
  const auto at = static_cast<size_t>(index);
  if (made.size() <= at) made.resize(at + 1);
  if (made[at] == nullptr) made[at] = new Gpu(index);  // never destroyed
  return *made[at];
}

}  // namespace loom::cuda
