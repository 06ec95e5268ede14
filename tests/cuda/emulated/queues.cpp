// SPDX-License-Identifier: Apache-2.0
#include <queues.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using loom::cuda::emulated::EventState;

// Work; what goes on outside; or an event that happens, or has to happen first, for the time-th time.
struct Task {
  loom::cuda::emulated::Work work;
  std::function<bool()> outside;
  std::shared_ptr<EventState> happens, awaited;
  uint64_t time = 0;
};

}  // namespace

struct emulated_stream {
  int device;
  std::deque<Task> tasks;
  uint64_t given = 0, done = 0;  // tasks
  loom::cuda::emulated::InCapture place = {};
};

namespace loom::cuda::emulated {

namespace {

uint64_t seed() {
  const char* const text = std::getenv("LOOM_EMULATED_ORDER");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

struct Machine {
  std::mutex mutex;
  std::vector<emulated_stream*> streams;
  const bool at_once = seed() == 0;
  std::mt19937_64 draw{seed()};
  std::string failure;   // of work, not told of yet
  int outside = 0;       // tasks
  bool running = false;  // the thread that runs what waits meanwhile
  uint64_t captures = 0;
};

// Never destroyed: what streams still hold when the process ends is never done.
Machine& machine() {
  static Machine& one = *new Machine;
  return one;
}

uint64_t draw_below(uint64_t bound) { return machine().draw() % bound; }

bool can_go_on(const emulated_stream& s) {
  if (s.tasks.empty()) return false;
  const Task& first = s.tasks.front();
  if (first.outside) return first.outside();
  return !first.awaited || first.awaited->happened >= first.time;
}

void run_first(emulated_stream& s) {
  const Task task = std::move(s.tasks.front());
  s.tasks.pop_front();
  ++s.done;
  if (task.outside) --machine().outside;
  if (task.happens) {
    task.happens->happened = std::max(task.happens->happened, task.time);
    task.happens->when = std::chrono::steady_clock::now();
  }
  if (!task.work) return;
  try {
    task.work();
  } catch (const std::exception& e) {
    if (machine().failure.empty()) machine().failure = e.what();
  }
}

// One task of any stream; false: none can go on.
bool run_any() {
  std::vector<emulated_stream*> ready;
  for (emulated_stream* const s : machine().streams)
    if (can_go_on(*s)) ready.push_back(s);
  if (ready.empty()) return false;
  run_first(*ready[draw_below(ready.size())]);
  return true;
}

// The caller has the lock.
void let_others_in() {
  machine().mutex.unlock();
  std::this_thread::sleep_for(std::chrono::microseconds(50));
  machine().mutex.lock();
}

void run_meanwhile() {
  const std::lock_guard lock(machine().mutex);
  for (; machine().outside > 0; let_others_in())
    for (int i = 0; i < 16 && run_any(); ++i) continue;
  machine().running = false;
}

thread_local std::string told;  // what the last launch that this thread was told of threw

template <class Reached>
cudaError_t finish_until(const Reached& reached) {
  while (!reached()) {
    if (run_any()) continue;
    if (machine().outside > 0) {
      let_others_in();
      continue;
    }
    std::fputs("emulated CUDA: the host waits for streams that wait for each other\n", stderr);
    std::abort();
  }
  if (machine().failure.empty()) return cudaSuccess;
  told = std::exchange(machine().failure, {});
  return cudaErrorLaunchFailure;
}

// A device also works while the host does: now and then some of what waits is done.
void work_a_little() {
  if (machine().at_once)
    while (run_any()) continue;
  else if (draw_below(16) == 0)
    for (uint64_t left = draw_below(8); left > 0 && run_any(); --left) continue;
}

void put(cudaStream_t stream, Task task) {
  if (stream == nullptr) {
    std::fputs("emulated CUDA: work in the default stream, which waits for all others\n", stderr);
    std::abort();
  }
  if (stream->place) return add_node(stream->place, {.work = std::move(task.work)});
  stream->tasks.push_back(std::move(task));
  ++stream->given;
  work_a_little();
}

void put_outside(cudaStream_t stream, std::function<bool()> step) {
  ++machine().outside;
  put(stream, {.outside = std::move(step)});
  if (!std::exchange(machine().running, true)) std::thread(run_meanwhile).detach();
}

}  // namespace

void enqueue(cudaStream_t stream, Work work) {
  const std::lock_guard lock(machine().mutex);
  put(stream, {.work = std::move(work)});
}

void enqueue_outside(cudaStream_t stream, std::function<std::function<bool()>()> make) {
  const std::lock_guard lock(machine().mutex);
  if (stream->place) return add_node(stream->place, {.outside = std::move(make)});
  put_outside(stream, make());
}

void enqueue_record(cudaStream_t stream, const std::shared_ptr<EventState>& event) {
  const std::lock_guard lock(machine().mutex);
  event->place = stream->place;
  if (!stream->place) put(stream, {.happens = event, .time = ++event->recorded});
}

cudaError_t enqueue_wait(cudaStream_t stream, const std::shared_ptr<EventState>& event) {
  const std::lock_guard lock(machine().mutex);
  if (stream->place || event->place) return join(stream->place, event->place);
  put(stream, {.awaited = event, .time = event->recorded});
  return cudaSuccess;
}

cudaError_t begin_capture(cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  if (stream->place) return cudaErrorStreamCaptureUnmatched;
  stream->place = {std::make_shared<Capture>(Capture{++machine().captures})};
  note_begun();
  return cudaSuccess;
}

cudaError_t end_capture(cudaStream_t stream, Nodes& nodes) {
  const std::lock_guard lock(machine().mutex);
  const InCapture origin = std::exchange(stream->place, {});
  if (!origin) return cudaErrorStreamCaptureUnmatched;
  note_ended();
  bool joined = true;
  for (emulated_stream* const other : machine().streams)
    if (other->place.capture == origin.capture)
      joined = comes_before(std::exchange(other->place, {}), origin) && joined;
  if (!origin.capture->valid) return cudaErrorStreamCaptureInvalidated;
  if (!joined) return cudaErrorStreamCaptureUnjoined;
  nodes = std::move(origin.capture->nodes);
  return cudaSuccess;
}

InCapture place_of(cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  return stream->place;
}

// As one task a node, so that other streams' work comes in between.
void enqueue_graph(cudaStream_t stream, const std::shared_ptr<const Nodes>& nodes) {
  const std::lock_guard lock(machine().mutex);
  for (const size_t i : any_order(*nodes, machine().draw)) {
    if ((*nodes)[i].outside)
      put_outside(stream, (*nodes)[i].outside());
    else
      put(stream, {.work = [nodes, i] { (*nodes)[i].work(); }});
  }
}

cudaError_t refused(cudaStream_t stream) {
  const std::lock_guard lock(machine().mutex);
  if (stream != nullptr && stream->place) stream->place.capture->valid = false;
  return cudaErrorStreamCaptureUnsupported;
}

cudaStream_t make_stream(int device) {
  const std::lock_guard lock(machine().mutex);
  return machine().streams.emplace_back(new emulated_stream{device, {}});
}

int device_of(cudaStream_t stream) { return stream->device; }

cudaError_t finish(cudaStream_t stream) {
  if (!may_wait_or_allocate() || place_of(stream)) return refused(stream);
  const std::lock_guard lock(machine().mutex);
  const uint64_t given = stream->given;
  return finish_until([&] { return stream->done >= given; });
}

cudaError_t finish(const std::shared_ptr<EventState>& event) {
  if (!may_wait_or_allocate()) return refused(nullptr);
  const std::lock_guard lock(machine().mutex);
  if (event->place) return cudaErrorCapturedEvent;
  const uint64_t time = event->recorded;
  return finish_until([&] { return event->happened >= time; });
}

cudaError_t finish_device(int device) {
  if (!may_wait_or_allocate()) return refused(nullptr);
  const std::lock_guard lock(machine().mutex);
  bool captured = false;  // by whatever thread: the driver refuses, and the capture is spoilt
  for (const emulated_stream* const s : machine().streams)
    if (s->device == device && s->place) {
      s->place.capture->valid = false;
      captured = true;
    }
  if (captured) return cudaErrorStreamCaptureUnsupported;
  return finish_until([&] {
    for (const emulated_stream* const s : machine().streams)
      if (s->device == device && s->done < s->given) return false;
    return true;
  });
}

cudaError_t query(const std::shared_ptr<EventState>& event) {
  const std::lock_guard lock(machine().mutex);
  if (event->place) return cudaErrorCapturedEvent;
  if (draw_below(2) == 0) run_any();
  return event->happened >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t elapsed(float& milliseconds, const std::shared_ptr<EventState>& from,
                    const std::shared_ptr<EventState>& to) {
  const std::lock_guard lock(machine().mutex);
  for (const EventState* const event : {from.get(), to.get()}) {
    if (event->place) return cudaErrorCapturedEvent;
    if (!event->timed || event->recorded == 0) return cudaErrorInvalidResourceHandle;
    if (event->happened < event->recorded) return cudaErrorNotReady;
  }
  milliseconds = std::chrono::duration<float, std::milli>(to->when - from->when).count();
  return cudaSuccess;
}

const char* failure() { return told.c_str(); }

}  // namespace loom::cuda::emulated
