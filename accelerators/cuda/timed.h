// How long the device takes for something, for choosing between ways to do it.
#pragma once

#include <functional>
#include <optional>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

// Milliseconds for what `start` puts into this thread's stream, several times over; the host waits for it. None where
// `start` throws an Error, or what it has started fails. Not while the stream is captured.
std::optional<double> timed(Gpu& gpu, const std::function<void()>& start);

// Whether this thread's stream is being captured: nothing can be timed then.
bool is_captured(Gpu& gpu);

}  // namespace loom::cuda
