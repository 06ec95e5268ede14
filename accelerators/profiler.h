// A trace of what the process does: ops, backward, modules, optimizers, collectives, copies and ranges of the user's
// own on each thread, and what GPUs do for them, as a file for https://ui.perfetto.dev or chrome://tracing.
//
//   Profiler profiler({.record_shapes = true});
//   for (...) { ...; profiler.step(); }
//   profiler.export_chrome_trace("trace.json");
//
// Without a change to the program: LOOM_TRACE=trace.json. docs/profiling.md says what is to be seen.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include <loom/accelerators/profile.h>

namespace loom {

namespace profile {
class Recording;
}

// torch.profiler's names, where it has them.
struct ProfilerOptions {
  bool record_shapes = false;      // shapes and dtypes of what ops are given
  bool profile_memory = false;     // what the allocators have given out and hold, where that changes
  bool devices = true;             // what GPUs do, by two events for a range: a few microseconds of the host's each
  int64_t max_events = 1'000'000;  // spans kept; those that come later are counted
};

class Profiler {
 public:
  // Records from here on, on all threads. One at a time in a process: Error else.
  explicit Profiler(const ProfilerOptions& options = {});
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  // What came since the last call, or the start, is one step ("ProfilerStep#0"). Where no range of this thread is open.
  void step();
  // Records no more; ranges that are open are not in the trace. Once is enough.
  void stop();
  // Stops, waits for what GPUs are doing, and writes all that was recorded of this process. The file appears whole or
  // not at all; Error where it cannot be written. Its times are of one clock on all ranks of a machine.
  void export_chrome_trace(const std::filesystem::path& path);
  uint64_t dropped() const;  // spans that max_events left no room for

 private:
  std::shared_ptr<profile::Recording> recording_;
  int64_t steps_ = 0, step_begin_;
};

namespace profile {

// LOOM_TRACE: begins to record; writes the file, with the rank in its name, when the process ends.
void start_trace_of_environment();
void write_trace_of_environment() noexcept;
// "runs/trace.json" of rank 2: "runs/trace.rank2.json"
std::filesystem::path path_of_rank(const std::filesystem::path& path, int rank);

}  // namespace profile
}  // namespace loom
