// SPDX-License-Identifier: Apache-2.0
// The CUDA runtime's functions: memory that knows what it is, copies, events.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include <contexts.h>
#include <queues.h>

using loom::cuda::emulated::EventState;
namespace emulated = loom::cuda::emulated;

struct emulated_event {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

namespace {

enum class Kind : uint8_t { device, pinned, pageable };
struct Range {
  size_t bytes;
  Kind kind;
  int device;
};
struct Ranges {
  std::mutex mutex;
  std::map<uintptr_t, Range> at;
};
Ranges& ranges() {
  static Ranges& one = *new Ranges;  // memory may be released while the process ends
  return one;
}

uintptr_t address(const void* memory) { return reinterpret_cast<uintptr_t>(memory); }

Kind kind_of(const void* memory) {
  const std::lock_guard lock(ranges().mutex);
  auto found = ranges().at.upper_bound(address(memory));
  if (found == ranges().at.begin()) return Kind::pageable;
  --found;
  return address(memory) < found->first + found->second.bytes ? found->second.kind : Kind::pageable;
}

thread_local int current_device = 0;

// What the runtime does first in almost every call.
void begin() { emulated::make_context(current_device); }

// As cuDevicePrimaryCtxGetState.
int state_of_context(int device, unsigned* flags, int* active) {
  *flags = 0;
  *active = emulated::has_context(device) ? 1 : 0;
  return 0;
}

cudaError_t take(void** memory, size_t bytes, Kind kind) {
  begin();
  if (!emulated::may_wait_or_allocate()) return emulated::refused(nullptr);
  *memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  const std::lock_guard lock(ranges().mutex);
  ranges().at[address(*memory)] = {bytes, kind, current_device};
  return cudaSuccess;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t e) {
  switch (e) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureUnjoined:
      return "cudaErrorStreamCaptureUnjoined";
    case cudaErrorStreamCaptureIsolation:
      return "cudaErrorStreamCaptureIsolation";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess ? "no error" : e == cudaErrorLaunchFailure ? emulated::failure() : "an error";
}

cudaError_t cudaGetDevice(int* device) { return *device = current_device, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  current_device = device;
  return begin(), cudaSuccess;
}
// CUDA_VISIBLE_DEVICES=0: the first alone.
cudaError_t cudaGetDeviceCount(int* count) {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return *count = visible != nullptr && std::strcmp(visible, "0") == 0 ? 1 : emulated::devices, cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::strcmp(symbol, "cuDevicePrimaryCtxGetState") == 0;
  *function = known ? reinterpret_cast<void*>(&state_of_context) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) { return *p = cudaDeviceProp(), cudaSuccess; }
cudaError_t cudaDeviceSynchronize() {
  begin();
  return emulated::finish_device(current_device);
}

cudaError_t cudaMalloc(void** memory, size_t bytes) { return take(memory, bytes, Kind::device); }
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) { return take(memory, bytes, Kind::pinned); }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  begin();
  return *device = host, cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  begin();

  if (memory == nullptr) return cudaSuccess;
  Range range{};
  {
    const std::lock_guard lock(ranges().mutex);
    const auto found = ranges().at.find(address(memory));
    if (found == ranges().at.end()) return cudaErrorInvalidValue;
    range = found->second;
  }
  const cudaError_t status = emulated::finish_device(range.device);
  {
    const std::lock_guard lock(ranges().mutex);
    ranges().at.erase(address(memory));
  }
  std::memset(memory, 0xff, range.bytes);  // for who still reads it
  std::free(memory);
  return status;
}
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  begin();

  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  begin();

  return *stream = emulated::make_stream(current_device), cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  begin();
  return emulated::finish(stream);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  begin();

  return emulated::enqueue_wait(stream, event->state);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  begin();
  *event = new emulated_event();
  (*event)->state->timed = flags != cudaEventDisableTiming;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  begin();

  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  begin();

  return emulated::enqueue_record(stream, event->state), cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  begin();

  return emulated::may_wait_or_allocate() ? emulated::query(event->state) : emulated::refused(nullptr);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  begin();
  return emulated::finish(event->state);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  begin();
  return emulated::elapsed(*milliseconds, start->state, end->state);
}

// As CUDA says ("API synchronization behavior"): pageable memory has been read when the call returns, and has been
// written; pinned memory is read and written when the stream comes to it.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  begin();

  const bool pageable = kind_of(from) == Kind::pageable || kind_of(to) == Kind::pageable;
  if (pageable && emulated::place_of(stream)) return emulated::refused(stream);
  if (kind_of(from) == Kind::pageable) {
    const auto* const begin = static_cast<const char*>(from);
    emulated::enqueue(stream, [to, staged = std::vector<char>(begin, begin + bytes)] {
      std::memcpy(to, staged.data(), staged.size());
    });
  } else {
    emulated::enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  }
  return kind_of(to) == Kind::pageable ? emulated::finish(stream) : cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  begin();

  return emulated::enqueue(stream, [=] { std::memset(to, value, bytes); }), cudaSuccess;
}

struct emulated_graph {
  std::shared_ptr<const emulated::Nodes> nodes;
};

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  begin();

  return emulated::begin_capture(stream);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  begin();

  auto nodes = std::make_shared<emulated::Nodes>();
  const cudaError_t status = emulated::end_capture(stream, *nodes);
  *graph = status == cudaSuccess ? new emulated_graph{std::move(nodes)} : nullptr;
  return status;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id) {
  begin();

  const emulated::InCapture place = emulated::place_of(stream);
  *status = !place                 ? cudaStreamCaptureStatusNone
            : place.capture->valid ? cudaStreamCaptureStatusActive
                                   : cudaStreamCaptureStatusInvalidated;
  *id = place ? place.capture->id : 0;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  unsigned long long id = 0;
  return cudaStreamGetCaptureInfo(stream, status, &id);
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  begin();

  return *mode = emulated::exchange_mode(*mode), cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  begin();

  return *exec = new emulated_graph{graph->nodes}, cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  begin();

  return emulated::enqueue_graph(stream, exec->nodes), cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  begin();

  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }
