// The door to cuDNN: graphs in, kernels out. Without the library there is none for any graph.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

// Which kernels may be taken.
struct DnnRules {
  bool tf32 = false, any_order = false;  // precision.h
  int64_t most_workspace = int64_t{1} << 30;
};

struct DnnContext;
struct Planned;

// The library's version, such as 91900; 0 where it is absent, of another major version, or switched off (LOOM_CUDNN=0).
size_t dnn_version();
std::string dnn_library();  // its name and version, or why there is none

// The plan of a graph, for a scope: it is this thread's meanwhile, as plans are not to be run by two at a time. Where
// autotunes() (precision.h) says so, the first run times what the library proposes, with the operands of that run.
class PlanUse {
 public:
  // Of the graph that `make` gives, which is asked when `key` is new.
  PlanUse(Gpu& gpu, const std::string& key, const DnnRules& rules, const std::function<Graph()>& make);
  ~PlanUse();
  PlanUse(const PlanUse&) = delete;
  PlanUse& operator=(const PlanUse&) = delete;
  explicit operator bool() const;  // false: the library has no kernel for it

  // Runs it in this thread's stream; memory: of the graph's tensors in memory, in order, on 16-byte boundaries.
  void run(std::span<void* const> memory) const;

 private:
  void choose(std::span<void* const> memory) const;
  void start(size_t way, std::span<void* const> memory) const;

  Gpu& gpu_;
  DnnContext* context_ = nullptr;
  std::pair<const std::string, Planned>* planned_ = nullptr;  // by its key
};

}  // namespace loom::cuda
