#include <loom/accelerators/recording.h>

#include <unistd.h>

#include <atomic>
#include <limits>
#include <utility>

#include <loom/accelerators/error.h>

namespace loom::profile {

Identity::Identity(int64_t thread) : name_(thread == ::getpid() ? "main" : str("thread ", thread)) {}

void Identity::set(std::string name, int rank) {
  const std::lock_guard lock(mutex_);
  name_ = std::move(name);
  rank_ = rank;
}
std::string Identity::name() const {
  const std::lock_guard lock(mutex_);
  return name_;
}
int Identity::rank() const {
  const std::lock_guard lock(mutex_);
  return rank_;
}

namespace {

std::shared_ptr<Room> unlimited() { return std::make_shared<Room>(std::numeric_limits<int64_t>::max()); }

}  // namespace

// Devices take room when their spans are measured.
Recording::Recording(const RecordingOptions& options)
    : options_(options), room_(std::make_shared<Room>(options.room)), devices_(room_), device_log_(unlimited(), 0) {}

std::shared_ptr<SpanLog> Recording::log_for(int64_t thread, std::shared_ptr<const Identity> identity) {
  auto log = std::make_shared<SpanLog>(room_, thread);
  const std::lock_guard lock(mutex_);
  threads_.push_back({log, std::move(identity)});
  return log;
}

std::vector<Recording::Thread> Recording::threads() const {
  const std::lock_guard lock(mutex_);
  return threads_;
}

const SpanLog& Recording::device_log() {
  std::call_once(finished_, [this] { devices_.finish(device_log_); });
  return device_log_;
}

uint64_t Recording::dropped() const {
  uint64_t out = devices_.dropped();
  for (const Thread& thread : threads()) out += thread.log->dropped();
  return out;
}

namespace {

struct Current {
  std::mutex mutex;
  std::shared_ptr<Recording> recording;
  std::string who;
  uint64_t started = 0;
};
Current& current() {
  static Current& one = *new Current;  // threads may record while the process ends
  return one;
}
std::atomic<uint64_t> number = 0;
std::atomic<bool> shapes = false;

}  // namespace

std::shared_ptr<Recording> start_recording(const RecordingOptions& options, const std::string& who) {
  auto recording = std::make_shared<Recording>(options);
  Current& now = current();
  const std::lock_guard lock(now.mutex);
  check(now.recording == nullptr, who, ": a trace is being recorded already, by ", now.who,
        "; a process records one at a time: stop that one first");
  now.recording = recording;
  now.who = who;
  shapes.store(options.shapes, std::memory_order_relaxed);
  number.store(++now.started, std::memory_order_release);
  observers.fetch_or(trace);
  return recording;
}

void stop_recording(const Recording& recording) {
  Current& now = current();
  const std::lock_guard lock(now.mutex);
  if (now.recording.get() != &recording) return;
  observers.fetch_and(~static_cast<uint32_t>(trace));
  number.store(0, std::memory_order_release);
  shapes.store(false, std::memory_order_relaxed);
  now.recording.reset();
}

std::shared_ptr<Recording> current_recording() {
  const std::lock_guard lock(current().mutex);
  return current().recording;
}
uint64_t recording_number() { return number.load(std::memory_order_acquire); }

bool records_shapes() { return shapes.load(std::memory_order_relaxed); }

}  // namespace loom::profile
