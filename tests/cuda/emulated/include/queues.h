// SPDX-License-Identifier: Apache-2.0
// Streams of the emulated device. Work that is put into one runs when somebody waits, in an order of the streams that
// is drawn anew each time: any that their events allow. LOOM_EMULATED_ORDER seeds it; 0: all is done at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <cuda_runtime_api.h>

namespace loom::cuda::emulated {

using Work = std::function<void()>;

// `work` comes after all that is in the stream. What it throws is a failed launch, which the next wait tells of.
void enqueue(cudaStream_t stream, Work work);

// How often an event has been recorded, and up to which of these times it has happened.
struct EventState {
  uint64_t recorded = 0, happened = 0;
};
void enqueue_record(cudaStream_t stream, const std::shared_ptr<EventState>& event);
void enqueue_wait(cudaStream_t stream, const std::shared_ptr<EventState>& event);

cudaStream_t make_stream(int device);
int device_of(cudaStream_t stream);

// Works on until that has been done which was asked for before; then what has failed meanwhile, or success.
cudaError_t finish(cudaStream_t stream);
cudaError_t finish(const std::shared_ptr<EventState>& event);
cudaError_t finish_device(int device);
const char* failure();                                        // of which this thread was told last
bool has_happened(const std::shared_ptr<EventState>& event);  // some work may be done before it looks

}  // namespace loom::cuda::emulated
