// Graphs as cuDNN's execution plans.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <loom/accelerators/cuda/dnn.h>
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
  std::vector<Descriptor> parts;  // what it was made of
  int64_t workspace = 0;
  std::vector<int64_t> memory;                     // uids of the tensors that are given at each run
  std::vector<std::pair<int64_t, float>> numbers;  // uids and values of constants
};

// Null where the library has no kernel for the graph that the rules allow.
std::shared_ptr<const Plan> make_plan(const Graph& graph, const DnnTarget& target, const DnnRules& rules);

}  // namespace loom::cuda
