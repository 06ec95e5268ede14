// What devices did for the ranges of a recording: moments of their streams at both ends of a range, looked at when they
// have come. The host waits for none of them before the end.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <loom/accelerators/device_clock.h>
#include <loom/accelerators/span_log.h>

namespace loom::profile {

class DeviceSpans {
 public:
  explicit DeviceSpans(std::shared_ptr<Room> room) : room_(std::move(room)) {}
  DeviceSpans(const DeviceSpans&) = delete;
  DeviceSpans& operator=(const DeviceSpans&) = delete;

  // A moment and what it is measured from: the base of the device's time, by way of others, as the device tells short
  // times more exactly than long ones.
  struct Anchor {
    std::shared_ptr<void> moment;
    std::shared_ptr<Anchor> before;  // null: the base, or `at` is known
    std::optional<double> at;        // milliseconds after the base
    int64_t host = 0;                // when the host asked for it
  };
  struct Begun {
    Device device;
    void* stream = nullptr;
    std::shared_ptr<void> from;  // null: nothing is measured
    std::shared_ptr<Anchor> anchor;
  };
  // stream: null for the thread's current one. Nothing is measured in a stream that is captured into a graph.
  Begun begin(Device device, void* stream);
  // span: all but its times.
  void end(const Begun& begun, std::string name, Span span);

  // Waits for what is measured and puts it into `log`, in the host's time.
  void finish(SpanLog& log);
  uint64_t dropped() const;

 private:
  struct Clocked {  // a device
    Device device;
    std::shared_ptr<Anchor> base;
    std::vector<std::pair<void*, std::shared_ptr<Anchor>>> streams;  // and the latest anchor of each
  };
  struct Measured {
    Device device;
    std::string name, track;
    Span span;
    double from = 0, to = 0;  // milliseconds after the base
  };
  struct Pending {
    Begun begun;
    std::shared_ptr<void> to;
    Measured measured;
  };

  std::shared_ptr<Anchor> anchor(const Begun& begun, int64_t now);
  bool measure(Pending& pending, bool wait);
  void collect(bool wait);
  std::optional<double> host_offset(const Clocked& clocked) const;

  const std::shared_ptr<Room> room_;
  mutable std::mutex mutex_;  // of all that follows
  bool finished_ = false;
  std::vector<Clocked> devices_;
  std::deque<Pending> pending_;
  std::vector<Measured> measured_;
  uint64_t dropped_ = 0;
};

}  // namespace loom::profile
