// CUDA graphs: what a thread puts into its stream, recorded with its memory.
#pragma once

#include <cstdint>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

class CapturedGraph final : public Captured {
 public:
  // Waits for the device and begins: in this thread's stream, and for this thread alone others' calls are not refused.
  explicit CapturedGraph(Gpu& gpu);
  ~CapturedGraph() override;
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  void* aside() const override { return gpu_.aside(); }
  void end() override;
  void replay() override;

 private:
  void abandon();
  cudaError_t end_recording(cudaGraph_t* graph);

  Gpu& gpu_;
  cudaStream_t stream_;
  uint64_t pool_ = 0;
  bool recording_ = false;
  cudaStream_t last_ = nullptr;  // that it was replayed in
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace loom::cuda
