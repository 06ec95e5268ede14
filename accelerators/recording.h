// What is recorded of the process between start and stop: a log for each thread, one for devices, and whose they are.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <loom/accelerators/device_spans.h>
#include <loom/accelerators/span_log.h>

namespace loom::profile {

struct RecordingOptions {
  bool shapes = false;  // of what ops are given
  bool memory = false;  // samples of what allocators have given out
  bool devices = true;  // spans of work on GPUs
  int64_t room = 0;     // spans
};

// Of a thread; it may be told after the thread has recorded.
class Identity {
 public:
  explicit Identity(int64_t thread);
  void set(std::string name, int rank);
  std::string name() const;
  int rank() const;  // -1: the process's

 private:
  mutable std::mutex mutex_;
  std::string name_;
  int rank_ = -1;
};

class Recording {
 public:
  explicit Recording(const RecordingOptions& options);
  const RecordingOptions& options() const { return options_; }
  DeviceSpans& devices() { return devices_; }
  // A log for a thread, which keeps it.
  std::shared_ptr<SpanLog> log_for(int64_t thread, std::shared_ptr<const Identity> identity);

  struct Thread {
    std::shared_ptr<const SpanLog> log;
    std::shared_ptr<const Identity> identity;
  };
  std::vector<Thread> threads() const;
  // After stop(): what devices did. Waits for them, once.
  const SpanLog& device_log();
  uint64_t dropped() const;  // spans that found no room

 private:
  const RecordingOptions options_;
  const std::shared_ptr<Room> room_;
  DeviceSpans devices_;
  SpanLog device_log_;
  std::once_flag finished_;
  mutable std::mutex mutex_;
  std::vector<Thread> threads_;
};

// From here on threads record. Throws where something is being recorded already; `who` does it, for the text.
std::shared_ptr<Recording> start_recording(const RecordingOptions& options, const std::string& who);
// Of what start has given, which is complete then but for what ranges that are open will say: nothing.
void stop_recording(const Recording& recording);

// A span of the current recording, if there is one, by this thread: on its own track, or on one of that name of `rank`.
struct Place {
  std::string track = {};
  int rank = -1;  // -1: the process's
};
void add_span(Activity activity, const Description& description, int64_t begin, int64_t end, const Place& place = {});

// The one that goes on and its number; null and 0: none. Numbers are never used again.
std::shared_ptr<Recording> current_recording();
uint64_t recording_number();

}  // namespace loom::profile
