// SPDX-License-Identifier: Apache-2.0
// Captures of the emulated device: work as nodes of a graph, each after those that its stream and the events that it
// waited for had come to. As strict as CUDA's: what it forbids spoils the capture. Callers hold the queues' lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include <cuda_runtime_api.h>

namespace loom::cuda::emulated {

struct Node {
  std::function<void()> work;
  std::function<std::function<bool()>()> outside;  // in place of work: what makes the steps of each replay
  std::vector<size_t> after;
};
using Nodes = std::vector<Node>;

struct Capture {
  uint64_t id;
  Nodes nodes = {};
  bool valid = true;
};

// Where a stream or an event stands in a capture, if it takes part in one.
struct InCapture {
  std::shared_ptr<Capture> capture;
  std::vector<size_t> last = {};  // nodes
  explicit operator bool() const { return capture != nullptr; }
};

void add_node(InCapture& at, Node node);
// A stream waits for an event; success, or why it may not.
cudaError_t join(InCapture& stream, const InCapture& event);
// Whether all that the others come to lies before where the origin stands.
bool comes_before(const InCapture& other, const InCapture& origin);
// An order of the nodes that the graph allows.
std::vector<size_t> any_order(const Nodes& nodes, std::mt19937_64& draw);

// This thread: what it is allowed to ask for, by the modes and captures that it has begun.
bool may_wait_or_allocate();
void note_begun();
void note_ended();
cudaStreamCaptureMode exchange_mode(cudaStreamCaptureMode mode);

}  // namespace loom::cuda::emulated
