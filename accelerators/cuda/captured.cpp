#include <loom/accelerators/cuda/captured.h>

#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

// What earlier steps have left in the cache goes back first: the graph takes memory of its own.
CapturedGraph::CapturedGraph(Gpu& gpu) : gpu_(gpu), stream_(gpu.stream()) {
  const DeviceScope scope(gpu.index());
  check(!is_capturing(stream_), "a graph is being captured in this stream of cuda:", gpu.index(), " already");
  gpu.synchronize();
  gpu.memory().empty_cache();
  check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  recording_ = true;
  pool_ = gpu.memory().begin_capture(stream_);
}

// Errors of the device stay for the next call that tells of them.
CapturedGraph::~CapturedGraph() {
  const DeviceScope scope(gpu_.index(), std::nothrow);
  cudaGraph_t graph = nullptr;
  if (recording_ && end_recording(&graph) == cudaSuccess && graph != nullptr) (void)cudaGraphDestroy(graph);
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
