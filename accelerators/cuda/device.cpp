#include <loom/accelerators/cuda/device.h>

#include <cstdlib>
#include <mutex>
#include <shared_mutex>
#include <string_view>
#include <utility>
#include <vector>

#include <loom/accelerators/cuda/bus_id.h>
#include <loom/accelerators/cuda/driver_events.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/watch.h>
#include <loom/accelerators/sync_debug.h>

namespace loom::cuda {

namespace {

class DriverMemory final : public DriverEvents {
 public:
  DriverMemory(int device, bool poisons) : DriverEvents(device), poisons_(poisons) {}
  void* allocate(size_t bytes) override {
    const DeviceScope scope(device());
    const CaptureRelaxed relaxed;
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      return nullptr;
    }
    check_cuda(status, "cudaMalloc");
    return memory;
  }
  void release(void* segment) noexcept override {
    const DeviceScope scope(device(), std::nothrow);
    (void)cudaFree(segment);
  }
  Event record(void* stream) override {
    const DeviceScope scope(device());
    return record_event(static_cast<cudaStream_t>(stream));
  }
  uint64_t capture_of(void* stream) override {
    const DeviceScope scope(device());
    return cuda::capture_of(static_cast<cudaStream_t>(stream));
  }
  void spoil(void* memory, size_t bytes, void* stream) override {
    if (!poisons_) return;
    const DeviceScope scope(device());
    check_cuda(cudaMemsetAsync(memory, 0xff, bytes, static_cast<cudaStream_t>(stream)), "poison");
  }

 private:
  bool poisons_;
};

bool asked_to_poison() {
  const char* const text = std::getenv("LOOM_POISON");
  return text != nullptr && std::string_view(text) == "1";
}

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
  check_cuda(cudaStreamCreateWithPriority(&aside_, cudaStreamNonBlocking, least), "cudaStreamCreateWithPriority");
  source_ = std::make_unique<DriverMemory>(index, asked_to_poison());
  memory_ = std::make_unique<BlockPool>(*source_, str("cuda:", index), memory_limit());
  if (asked_to_poison()) watch_ = std::make_unique<Watch>(*this);
  void* host = nullptr;
  void* device = nullptr;
  check_cuda(cudaHostAlloc(&host, sizeof(Fault), cudaHostAllocMapped), "cudaHostAlloc");
  check_cuda(cudaHostGetDevicePointer(&device, host, 0), "cudaHostGetDevicePointer");
  fault_host_ = new (host) Fault;
  fault_device_ = static_cast<Fault*>(device);
}

Gpu::~Gpu() = default;

DeviceProperties Gpu::described() const {
  const auto attribute = [this](cudaDeviceAttr which) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, index_), "cudaDeviceGetAttribute");
    return static_cast<double>(value);
  };
  DeviceProperties out;
  out.name = static_cast<const char*>(properties_.name);
  out.id = bus_id(index_);
  out.memory = static_cast<int64_t>(properties_.totalGlobalMem);
  out.multiprocessors = properties_.multiProcessorCount;
  out.major = properties_.major;
  out.minor = properties_.minor;
  out.clock = attribute(cudaDevAttrClockRate) * 1e3;  // of kHz
  // Two transfers a cycle, of a width in bits.
  out.memory_bandwidth =
      attribute(cudaDevAttrMemoryClockRate) * 1e3 * 2 * attribute(cudaDevAttrGlobalMemoryBusWidth) / 8;
  return out;
}

void* Gpu::allocate(size_t bytes) { return watch_ ? watch_->allocate(bytes) : memory_->allocate(bytes, stream()); }

void Gpu::release(void* block) noexcept {
  if (watch_)
    watch_->release(block);
  else
    memory_->release(block);
}

void Gpu::use_by(void* block, cudaStream_t stream) {
  if (watch_)
    watch_->use_by(block, stream);
  else
    memory_->use_by(block, stream);
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
  if (kind == FaultKind::overrun)
    fail(f.op, " cuda:", index_, ": something wrote to byte ", f.value, " of a block of ", f.extent, " bytes, the ",
         f.at, "th that was allocated; compute-sanitizer tells which kernel it was");
  if (kind == FaultKind::index)
    fail(f.op, ": index ", f.value, " is out of range for dimension ", f.at, " of size ", f.extent);
  if (kind == FaultKind::norm)
    fail(f.op,
         ": the norm of the gradients is not finite, so they cannot be scaled; set error_if_nonfinite=false to scale "
         "anyway");
  fail(f.op, ": target ", f.value, " at row ", f.at, " is out of range for ", f.extent, " classes (ignore_index is ",
       f.ignored, ")");
}

void Gpu::check_may_wait() const {
  const DeviceScope scope(index_);
  check(!is_capturing(stream()), "the host would wait for cuda:", index_,
        ", where a graph is being captured: nothing of it has been done yet; wait after replay()");
  note_host_wait(str("cuda:", index_));
}

void Gpu::synchronize() {
  const DeviceScope scope(index_);
  check_may_wait();
  {
    const std::shared_lock lock(capturing_);
    check(!captured_, "the host would wait for all of cuda:", index_,
          ", where another thread captures a graph; wait for a stream or an event of your own");
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  check_faults();
}

void Gpu::begin_capture() {
  const std::lock_guard lock(capturing_);
  check(!captured_, "a graph of cuda:", index_, " is being captured already");
  captured_ = true;
}

void Gpu::end_capture() {
  const std::lock_guard lock(capturing_);
  captured_ = false;
}

bool Gpu::is_captured() const {
  const std::shared_lock lock(capturing_);
  return captured_;
}

namespace {

std::string version_text(int version) { return str(version / 1000, ".", version % 1000 / 10); }

std::string why_none(cudaError_t status, int driver) {
  int runtime = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return "no CUDA device: this machine has no driver of NVIDIA's";
  if (status == cudaErrorInsufficientDriver)
    return str("no CUDA device: the driver is of CUDA ", version_text(driver), ", this build needs one of ",
               version_text(runtime));
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return str("no CUDA device: ", status == cudaSuccess ? "the driver has none" : cudaGetErrorString(status),
             visible != nullptr ? str(" (CUDA_VISIBLE_DEVICES=", visible, ")") : std::string());
}

}  // namespace

int count_devices(std::string& description) {
  int count = 0, driver = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (status != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    description = why_none(status, driver);
    return 0;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    check_cuda(cudaGetDeviceProperties(&p, i), "cudaGetDeviceProperties");
    description += str(i == 0 ? "" : ", ", static_cast<const char*>(p.name));
  }
  description += str("; driver ", version_text(driver));
  return count;
}

namespace {

std::mutex making;
std::vector<Gpu*>& made() {
  static auto* const all = new std::vector<Gpu*>;  // never destroyed
  return *all;
}

}  // namespace

Gpu& gpu(int index) {
  const std::lock_guard lock(making);
  const auto at = static_cast<size_t>(index);
  if (made().size() <= at) made().resize(at + 1);
  if (made()[at] == nullptr) made()[at] = new Gpu(index);
  return *made()[at];
}

std::vector<Gpu*> gpus_in_use() {
  const std::lock_guard lock(making);
  std::vector<Gpu*> out = made();
  std::erase(out, nullptr);
  return out;
}

int device_in_use() noexcept {
  int device = 0;
  (void)cudaGetDevice(&device);
  if (has_context(device)) return device;
  const std::lock_guard lock(making);
  for (const Gpu* const one : made())
    if (one != nullptr) return one->index();
  return device;
}

}  // namespace loom::cuda
