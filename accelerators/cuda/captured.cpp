#include <loom/accelerators/cuda/captured.h>

#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/sync_debug.h>

namespace loom::cuda {

// What earlier steps have left in the cache goes back first: the graph takes memory of its own. That the host waits for
// it is no mistake of the program's.
CapturedGraph::CapturedGraph(Gpu& gpu) : gpu_(gpu), stream_(gpu.stream()) {
  const DeviceScope scope(gpu.index());
  check(!is_capturing(stream_), "a graph is being captured in this stream of cuda:", gpu.index(), " already");
  {
    const SyncDebugScope allowed(SyncDebugMode::off);
    gpu.synchronize();
  }
  gpu.memory().empty_cache();
  gpu.begin_capture();
  const cudaError_t status = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
  if (status != cudaSuccess) gpu.end_capture();
  check_cuda(status, "cudaStreamBeginCapture");
  recording_ = true;
  try {
    pool_ = gpu.memory().begin_capture(stream_);
  } catch (...) {
    abandon();
    throw;
  }
}

void CapturedGraph::abandon() {
  cudaGraph_t graph = nullptr;
  if (recording_ && end_recording(&graph) == cudaSuccess && graph != nullptr) (void)cudaGraphDestroy(graph);
}

// Errors of the device stay for the next call that tells of them.
CapturedGraph::~CapturedGraph() {
  const DeviceScope scope(gpu_.index(), std::nothrow);
  abandon();
  (void)cudaStreamSynchronize(gpu_.aside());  // what was made there outlives a capture that failed
  if (last_ != nullptr) (void)cudaStreamSynchronize(last_);
  if (graph_ != nullptr) (void)cudaGraphExecDestroy(graph_);
  (void)cudaGetLastError();
  gpu_.memory().forget_capture(pool_);
}

cudaError_t CapturedGraph::end_recording(cudaGraph_t* graph) {
  recording_ = false;
  const cudaError_t status = cudaStreamEndCapture(stream_, graph);
  gpu_.memory().end_capture(stream_);
  gpu_.end_capture();
  return status;
}

void CapturedGraph::end() {
  const DeviceScope scope(gpu_.index());
  cudaGraph_t graph = nullptr;
  check_cuda(end_recording(&graph), "cudaStreamEndCapture");
  const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
  (void)cudaGraphDestroy(graph);
  check_cuda(status, "cudaGraphInstantiate");
  check_cuda(cudaStreamSynchronize(gpu_.aside()), "capture");
}

void CapturedGraph::replay() {
  const DeviceScope scope(gpu_.index());
  last_ = gpu_.stream();
  check_cuda(cudaGraphLaunch(graph_, last_), "cudaGraphLaunch");
}

}  // namespace loom::cuda
