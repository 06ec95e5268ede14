// What the cache of plans (dnn.cpp) asks of cuDNN; no_dnn.cpp answers where it is not there when Loom is built.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <vector>

#include <loom/accelerators/cuda/dnn.h>

struct cudnnContext;

namespace loom::cuda {

// The library's state on one device, for one thread at a time. On the current device; never destroyed.
using DnnHandle = cudnnContext*;
DnnHandle new_dnn_handle();

// How the library would compute a graph, at most so many ways, the one that it takes for the best first. None where it
// has no kernel that the rules allow.
struct Plan;
std::vector<std::shared_ptr<const Plan>> plans_of(const Graph& graph, DnnHandle handle, const DnnRules& rules,
                                                  size_t most);
size_t workspace_of(const Plan& plan);  // bytes

// Puts it into the stream. memory: of the graph's tensors in memory, in order.
void run_plan(const Plan& plan, DnnHandle handle, cudaStream_t stream, std::span<void* const> memory, void* workspace);

}  // namespace loom::cuda
