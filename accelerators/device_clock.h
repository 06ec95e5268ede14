// When a device has come to a place in one of its streams.
#pragma once

#include <memory>
#include <optional>

namespace loom {

class DeviceClock {
 public:
  virtual ~DeviceClock() = default;
  // A moment of the device, when the stream will have come to here. Null while the stream is captured into a graph.
  virtual std::shared_ptr<void> record(void* stream) = 0;
  // How long after the first moment the second came; none as long as one of them has not come. wait: the host waits for
  // both. Also by a thread that captures a graph.
  virtual std::optional<double> milliseconds(void* from, void* to, bool wait) = 0;
};

}  // namespace loom
