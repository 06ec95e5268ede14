#include <loom/accelerators/profile.h>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include <loom/accelerators/error.h>
#include <loom/accelerators/host_clock.h>
#include <loom/accelerators/memory.h>
#include <loom/accelerators/nvtx.h>
#include <loom/accelerators/profiler.h>
#include <loom/accelerators/recording.h>

namespace loom {

std::string_view to_string(Activity activity) {
  constexpr std::string_view names[] = {"op",         "backward", "module", "optimizer", "fabric",
                                        "collective", "copy",     "loader", "wait",      "user"};
  return names[static_cast<size_t>(activity)];
}

namespace profile {

constinit std::atomic<uint32_t> observers = undecided;

namespace {

std::atomic<int> rank_of_process = 0;

// A range that has begun and not ended.
struct Open {
  Activity activity = Activity::user;
  Description description;
  DeviceSpans::Begun begun;
  uint64_t recording = 0;  // its number; 0: none
  uint64_t flow = 0;
  int64_t begin = 0;
};

struct Sample {
  Device device;
  int64_t allocated = -1, reserved = -1;
};

struct Thread {
  int64_t number = ::gettid();
  std::shared_ptr<Identity> identity = std::make_shared<Identity>(number);
  std::vector<Open> open;
  // Of the recording with this number.
  uint64_t recording = 0;
  std::weak_ptr<Recording> of;
  std::shared_ptr<SpanLog> log;
  RecordingOptions options;
  std::vector<Sample> samples;
};

// Null before the thread's first range and after its end, when destructors of others may still have ranges.
[[gnu::tls_model("initial-exec")]] thread_local constinit Thread* own_thread = nullptr;
[[gnu::tls_model("initial-exec")]] thread_local constinit bool thread_ended = false;

struct Owner {
  Owner() = default;
  ~Owner() {
    thread_ended = true;
    delete std::exchange(own_thread, nullptr);
  }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
};

Thread* this_thread() {
  if (own_thread == nullptr && !thread_ended) {
    thread_local const Owner owner;
    own_thread = new Thread;
  }
  return own_thread;
}

// What the environment asks for, once.
void decide() {
  static std::once_flag once;
  std::call_once(once, [] {
    uint32_t found = 0;
    if (nvtx::attach()) found |= tool;
    start_trace_of_environment();
    observers.fetch_or(found);
    observers.fetch_and(~static_cast<uint32_t>(undecided));
  });
}

// Makes the thread's log that of the recording; false: there is none any more.
bool follow_recording(Thread& thread) {
  const uint64_t now = recording_number();
  if (now == 0) return false;
  if (thread.recording == now) return true;
  const std::shared_ptr<Recording> recording = current_recording();
  if (recording == nullptr) return false;
  thread.recording = now;
  thread.of = recording;
  thread.log = recording->log_for(thread.number, thread.identity);
  thread.options = recording->options();
  thread.samples.clear();
  return true;
}

void begin_on_device(Thread& thread, Open& open) {
  if (open.description.device.kind == Device::cpu || !thread.options.devices) return;
  const std::shared_ptr<Recording> recording = thread.of.lock();
  if (recording == nullptr) return;
  static std::atomic<uint64_t> flows = 0;
  open.begun = recording->devices().begin(open.description.device, open.description.stream);
  if (!open.begun.from) return;
  open.flow = ++flows;
  static const int before_the_driver_goes = std::atexit(write_trace_of_environment);
  static_cast<void>(before_the_driver_goes);
}

void sample_memory(Thread& thread, Device device, int64_t now) {
  const MemoryStats stats = memory_stats(device);
  auto last = std::ranges::find(thread.samples, device, &Sample::device);
  if (last == thread.samples.end()) last = thread.samples.insert(last, {device});
  const int64_t reserved = stats.allocated + stats.cached;
  if (last->allocated == stats.allocated && last->reserved == reserved) return;
  *last = {device, stats.allocated, reserved};
  Span span{.begin = now, .end = now, .kind = Span::counter};
  span.args = str("\"allocated\": ", stats.allocated, ", \"reserved\": ", reserved);
  thread.log->add(str("memory ", device), {}, std::move(span));
}

void record(Thread& thread, Open& open, int64_t end) {
  const Description& d = open.description;
  Span span{.args = d.args, .begin = open.begin, .end = end, .flow = open.flow, .activity = open.activity};
  if (open.begun.from) {
    if (const std::shared_ptr<Recording> recording = thread.of.lock()) {
      Span on_device = span;
      on_device.rank = thread.identity->rank();
      recording->devices().end(open.begun, d.name, std::move(on_device));
    }
  }
  thread.log->add(d.name, {}, std::move(span));
  if (thread.options.memory) sample_memory(thread, d.device, end);
}

}  // namespace

void add_span(Activity activity, const Description& description, int64_t begin, int64_t end, const Place& place) {
  Thread* const thread = this_thread();
  if (thread == nullptr || !follow_recording(*thread)) return;
  Span span{.args = description.args, .begin = begin, .end = end, .rank = place.rank, .activity = activity};
  thread->log->add(description.name, place.track, std::move(span));
}

void Range::begin(Activity activity, const Description& description) {
  if ((observers.load(std::memory_order_acquire) & undecided) != 0) decide();
  Thread* const thread = this_thread();
  if (thread == nullptr) return;
  const uint32_t who = observers.load(std::memory_order_acquire);
  Open open{.activity = activity, .description = description};
  if ((who & trace) != 0 && follow_recording(*thread)) {
    open.recording = thread->recording;
    begin_on_device(*thread, open);
  }
  if (open.recording == 0 && (who & tool) == 0) return;
  open.begin = host_nanoseconds();
  thread->open.push_back(std::move(open));
  told_ = who;
  if ((who & tool) != 0) nvtx::push(description.name, activity);
}

void Range::end() noexcept {
  Thread* const thread = own_thread;
  if ((told_ & tool) != 0) nvtx::pop();
  if (thread == nullptr || thread->open.empty()) return;
  const int64_t now = host_nanoseconds();
  try {
    Open open = std::move(thread->open.back());
    thread->open.pop_back();
    if (open.recording != 0 && open.recording == thread->recording && open.recording == recording_number())
      record(*thread, open, now);
  } catch (const std::exception&) {  // no memory, or a device that failed: the range is not told of
  }
}

void set_process_rank(int rank) { rank_of_process = rank; }
int process_rank() { return rank_of_process; }

int rank() { return own_thread != nullptr ? own_thread->identity->rank() : -1; }

void name_thread(std::string name, int rank) {
  if (Thread* const thread = this_thread()) thread->identity->set(std::move(name), rank);
}

}  // namespace profile
}  // namespace loom
