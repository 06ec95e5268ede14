// What a thread is doing, told to those who observe it: a trace (profiler.h), a tool of NVIDIA's (nvtx.h). Where nobody
// does, a range costs one load and a branch.
//
//   const auto range = record_function("augment");  // from here to the end of the scope
//
// Ranges of a thread end in the reverse order of their beginnings.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

#include <loom/accelerators/device.h>

namespace loom {

enum class Activity : uint8_t { op, backward, module, optimizer, fabric, collective, copy, loader, wait, user };
std::string_view to_string(Activity activity);

namespace profile {

// Who observes; `undecided` until a first range has asked the environment.
enum Observer : uint32_t { trace = 1, tool = 2, undecided = 4 };
extern std::atomic<uint32_t> observers;
inline bool observed() { return observers.load(std::memory_order_relaxed) != 0; }
bool records_shapes();  // the trace wants to know what ops are given

// What is told of a range.
struct Description {
  std::string name;
  std::string args = {};   // members of a JSON object: "\"bytes\": 8"
  Device device = {};      // not the host's: work on this device, ...
  void* stream = nullptr;  // ... in this stream; null: the thread's current one
};

class Range {
 public:
  Range() = default;  // of nothing, until begin
  Range(Activity activity, std::string_view name) {
    if (observed()) [[unlikely]]
      begin(activity, {std::string(name)});
  }
  // describe() gives the Description, if anybody wants to know.
  template <std::invocable Describe>
  Range(Activity activity, const Describe& describe) {
    if (observed()) [[unlikely]]
      begin(activity, describe());
  }
  ~Range() {
    if (told_ != 0) [[unlikely]]
      end();
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

  void begin(Activity activity, const Description& description);  // once

 private:
  void end() noexcept;
  uint32_t told_ = 0;  // observers that know of the begin
};

// Whose work a thread does. Where ranks are threads, each is told its own, as are those that work for it; -1: the
// process's, which is 0 until it has joined others.
void set_process_rank(int rank);
int process_rank();
int rank();  // of this thread
// This thread's name in traces, and its rank.
void name_thread(std::string name, int rank);

}  // namespace profile

// A range of the user's own.
[[nodiscard]] inline profile::Range record_function(std::string_view name) { return {Activity::user, name}; }

}  // namespace loom
