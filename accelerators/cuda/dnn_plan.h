// Graphs as cuDNN's execution plans.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <loom/accelerators/cuda/dnn_library.h>
#include <loom/accelerators/cuda/dnn_operations.h>

namespace loom::cuda {

// The device that plans are for: that of a handle, or one described in JSON, which need not be there.
struct DnnTarget {
  cudnnHandle_t handle = nullptr;
  const Descriptor* described = nullptr;
};
Descriptor described_device(const std::string& json);

struct Plan {
  Descriptor plan{CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR};
  std::shared_ptr<const std::vector<Descriptor>> parts;  // what it was made of, with the other plans of its graph
  int64_t workspace = 0;
  std::vector<int64_t> memory;                     // uids of the tensors that are given at each run
  std::vector<std::pair<int64_t, float>> numbers;  // uids and values of constants
};

// At most so many, best first; none where the library has no kernel for the graph that the rules allow.
std::vector<std::shared_ptr<const Plan>> make_plans(const Graph& graph, const DnnTarget& target, const DnnRules& rules,
                                                    size_t most);

}  // namespace loom::cuda
