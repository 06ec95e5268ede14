// SPDX-License-Identifier: Apache-2.0
// Streams of the emulated device. Work that is put into one runs when somebody waits, in an order of the streams that
// is drawn anew each time: any that their events allow. LOOM_EMULATED_ORDER seeds it; 0: all is done at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include <captures.h>
#include <cuda_runtime_api.h>

namespace loom::cuda::emulated {

using Work = std::function<void()>;

// `work` comes after all that is in the stream. What it throws is a failed launch, which the next wait tells of.
void enqueue(cudaStream_t stream, Work work);

// What goes on outside of the machine: `step` is asked again and again whether it is over, and what follows in the
// stream comes after that. While there is some, a thread of its own runs what waits, as the other side may depend on
// it. `make` gives the step: now, or for each replay of the graph that the stream is captured into.
void enqueue_outside(cudaStream_t stream, std::function<std::function<bool()>()> make);

// How often an event has been recorded, and up to which of these times it has happened; or where in a capture.
struct EventState {
  uint64_t recorded = 0, happened = 0;
  bool timed = false;
  std::chrono::steady_clock::time_point when = {};  // it happened last
  InCapture place = {};
};
void enqueue_record(cudaStream_t stream, const std::shared_ptr<EventState>& event);
cudaError_t enqueue_wait(cudaStream_t stream, const std::shared_ptr<EventState>& event);

cudaError_t begin_capture(cudaStream_t stream);
cudaError_t end_capture(cudaStream_t stream, Nodes& nodes);
InCapture place_of(cudaStream_t stream);
void enqueue_graph(cudaStream_t stream, const std::shared_ptr<const Nodes>& nodes);
// What a call may not do while this thread captures; makes the stream's capture invalid, if it takes part in one.
cudaError_t refused(cudaStream_t stream);

cudaStream_t make_stream(int device);
int device_of(cudaStream_t stream);

// Works on until that has been done which was asked for before; then what has failed meanwhile, or success.
cudaError_t finish(cudaStream_t stream);
cudaError_t finish(const std::shared_ptr<EventState>& event);
cudaError_t finish_device(int device);
const char* failure();                                        // of which this thread was told last
cudaError_t query(const std::shared_ptr<EventState>& event);  // some work may be done before it looks
cudaError_t elapsed(float& milliseconds, const std::shared_ptr<EventState>& from,
                    const std::shared_ptr<EventState>& to);

}  // namespace loom::cuda::emulated
