// SPDX-License-Identifier: Apache-2.0
#include <captures.h>

#include <algorithm>
#include <set>
#include <utility>

namespace loom::cuda::emulated {

namespace {

thread_local int begun = 0;
thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;

}  // namespace

bool may_wait_or_allocate() { return begun == 0 || mode == cudaStreamCaptureModeRelaxed; }
void note_begun() { ++begun; }
void note_ended() { --begun; }
cudaStreamCaptureMode exchange_mode(cudaStreamCaptureMode wanted) { return std::exchange(mode, wanted); }

void add_node(InCapture& at, Node node) {
  Nodes& nodes = at.capture->nodes;
  node.after = at.last;
  nodes.push_back(std::move(node));
  at.last = {nodes.size() - 1};
}

cudaError_t join(InCapture& stream, const InCapture& event) {
  if (!event) {
    stream.capture->valid = false;
    return cudaErrorStreamCaptureIsolation;
  }
  if (!stream) {
    stream = event;
    return cudaSuccess;
  }
  if (stream.capture != event.capture) {
    stream.capture->valid = event.capture->valid = false;
    return cudaErrorStreamCaptureMerge;
  }
  for (const size_t node : event.last)
    if (std::ranges::find(stream.last, node) == stream.last.end()) stream.last.push_back(node);
  return cudaSuccess;
}

bool comes_before(const InCapture& other, const InCapture& origin) {
  std::set<size_t> before;
  std::vector<size_t> open = origin.last;
  while (!open.empty()) {
    const size_t node = open.back();
    open.pop_back();
    if (!before.insert(node).second) continue;
    const auto& after = origin.capture->nodes[node].after;
    open.insert(open.end(), after.begin(), after.end());
  }
  return std::ranges::all_of(other.last, [&](size_t node) { return before.contains(node); });
}

std::vector<size_t> any_order(const Nodes& nodes, std::mt19937_64& draw) {
  std::vector<size_t> waits(nodes.size()), ready, order;
  std::vector<std::vector<size_t>> next(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    waits[i] = nodes[i].after.size();
    for (const size_t before : nodes[i].after) next[before].push_back(i);
    if (waits[i] == 0) ready.push_back(i);
  }
  order.reserve(nodes.size());
  while (!ready.empty()) {
    std::swap(ready[draw() % ready.size()], ready.back());
    order.push_back(ready.back());
    ready.pop_back();
    for (const size_t i : next[order.back()])
      if (--waits[i] == 0) ready.push_back(i);
  }
  return order;
}

}  // namespace loom::cuda::emulated
