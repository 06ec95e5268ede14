// Queues of work on a device. What is put into one stream runs in order; different streams run side by side, and wait
// for each other by events. The CPU has one stream, in which work is done when its call returns.
//
//   Event ready = current_stream(device).record();
//   Stream side = stream(device, Lane::communication);
//   side.wait(ready);  // what follows in `side` comes after what is in the current stream now; the host does not wait
#pragma once

#include <cstdint>
#include <memory>

#include <loom/accelerators/device.h>

namespace loom {

// What a stream is for. Each device has one of each.
enum class Lane : uint8_t { compute, copy, communication };

class Event {
 public:
  Event() = default;  // has happened
  bool is_done() const;
  void synchronize() const;  // the host waits

 private:
  friend class Stream;
  Event(Device device, std::shared_ptr<void> handle) : device_(device), handle_(std::move(handle)) {}
  Device device_;
  std::shared_ptr<void> handle_;
};

class Stream {
 public:
  explicit Stream(Device device = {}, void* handle = nullptr) : device_(device), handle_(handle) {}
  Device device() const { return device_; }
  void* handle() const { return handle_; }  // cudaStream_t
  Event record() const;                     // happens when the stream has come to here
  void wait(const Event& event) const;
  void synchronize() const;  // the host waits; throws what a kernel has found wrong
  bool operator==(const Stream&) const = default;

 private:
  Device device_;
  void* handle_;
};

Stream stream(Device device, Lane lane);
// Where this thread's work on the device goes; the compute lane, unless a StreamScope says otherwise.
Stream current_stream(Device device);
// The host waits for all streams of the device.
void synchronize(Device device);

// For a scope, this thread's work on the stream's device goes there. Memory that was allocated outside and is used in
// it has to live until the stream has come so far (the accelerator's use_by says so).
class StreamScope {
 public:
  explicit StreamScope(const Stream& stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  Stream previous_;
};

}  // namespace loom
