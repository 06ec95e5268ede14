#include <loom/accelerators/cuda/runtime.h>

#include <atomic>

namespace loom::cuda {

namespace {

using StateOfContext = int (*)(int device, unsigned* flags, int* active);  // cuDevicePrimaryCtxGetState, CUDA 7

StateOfContext state_of_context() {
  constexpr unsigned since = 7000;
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &entry, since, cudaEnableDefault, &found);
  return status == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<StateOfContext>(entry)
                                                                       : nullptr;
}

}  // namespace

// Contexts stay to the end: the driver is asked until there is one. A device's number is its handle.
bool has_context(int device) {
  static const StateOfContext state = state_of_context();
  static std::atomic<uint64_t> seen = 0;
  const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
  if ((seen.load(std::memory_order_relaxed) & bit) != 0) return true;
  unsigned flags = 0;
  int active = 0;
  if (state != nullptr && (state(device, &flags, &active) != 0 || active == 0)) return false;
  seen.fetch_or(bit, std::memory_order_relaxed);
  return true;
}

void fail_cuda(cudaError_t status, const char* what) {
  (void)cudaGetLastError();  // it has been told of: the next call starts clean, unless the device is lost
  fail(what, ": ", cudaGetErrorName(status), ": ", cudaGetErrorString(status));
}

std::shared_ptr<void> new_event() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
  return {event, [device](void* e) {
            const DeviceScope scope(device, std::nothrow);
            (void)cudaEventDestroy(static_cast<cudaEvent_t>(e));
          }};
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

uint64_t capture_of(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  check_cuda(cudaStreamGetCaptureInfo(stream, &status, &id), "cudaStreamGetCaptureInfo");
  return status == cudaStreamCaptureStatusNone ? 0 : id;
}

}  // namespace loom::cuda
