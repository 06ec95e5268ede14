// The door to cuDNN: graphs in, kernels out. Without the library (no_dnn.cpp) there is none for any graph.
#pragma once

#include <functional>
#include <span>
#include <string>

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

// Which kernels may be taken.
struct DnnRules {
  bool tf32 = false, any_order = false;  // precision.h
  int64_t most_workspace = int64_t{1} << 30;
};

struct Plan;
struct DnnContext;

// The library's version, such as 91900; 0 where it is absent or switched off (LOOM_CUDNN=0).
size_t dnn_version();

// The plan of a graph, for a scope: it is this thread's meanwhile, as plans are not to be run by two at a time.
class PlanUse {
 public:
  // Of the graph that `make` gives, which is asked when `key` is new.
  PlanUse(Gpu& gpu, const std::string& key, const DnnRules& rules, const std::function<Graph()>& make);
  ~PlanUse();
  PlanUse(const PlanUse&) = delete;
  PlanUse& operator=(const PlanUse&) = delete;
  explicit operator bool() const { return plan_ != nullptr; }  // false: the library has no kernel for it

  // Runs it in this thread's stream; memory: of the graph's tensors in memory, in order, on 16-byte boundaries.
  void run(std::span<void* const> memory) const;

 private:
  Gpu& gpu_;
  DnnContext* context_ = nullptr;
  const Plan* plan_ = nullptr;
};

}  // namespace loom::cuda
