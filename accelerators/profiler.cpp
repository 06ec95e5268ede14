#include <loom/accelerators/profiler.h>

#include <cstdlib>
#include <iostream>
#include <utility>

#include <loom/accelerators/chrome_trace.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/host_clock.h>
#include <loom/accelerators/recording.h>

namespace loom {

namespace {

profile::RecordingOptions recording_options(const ProfilerOptions& o) {
  check(o.max_events > 0, "Profiler: max_events is ", o.max_events, ", expected more than 0");
  return {o.record_shapes, o.profile_memory, o.devices, o.max_events};
}

}  // namespace

Profiler::Profiler(const ProfilerOptions& options)
    : recording_(profile::start_recording(recording_options(options), "Profiler")), step_begin_(host_nanoseconds()) {}

Profiler::~Profiler() { stop(); }

void Profiler::step() {
  const int64_t now = host_nanoseconds();
  if (profile::current_recording() == recording_)
    profile::add_span(Activity::user, {str("ProfilerStep#", steps_)}, step_begin_, now);
  ++steps_;
  step_begin_ = now;
}

void Profiler::stop() { profile::stop_recording(*recording_); }

void Profiler::export_chrome_trace(const std::filesystem::path& path) {
  stop();
  profile::write_chrome_trace(path, *recording_);
}

uint64_t Profiler::dropped() const { return recording_->dropped(); }

namespace profile {

namespace {

struct OfEnvironment {
  std::filesystem::path path;
  std::shared_ptr<Recording> recording;
};
OfEnvironment& of_environment() {
  static OfEnvironment& one = *new OfEnvironment;  // written when the process ends
  return one;
}

}  // namespace

std::filesystem::path path_of_rank(const std::filesystem::path& path, int rank) {
  std::filesystem::path out = path;
  return out.replace_filename(str(path.stem().string(), ".rank", rank, path.extension().string()));
}

void start_trace_of_environment() {
  const char* const text = std::getenv("LOOM_TRACE");
  if (text == nullptr || *text == '\0') return;
  const std::filesystem::path path = text;
  if (path.has_parent_path() && !std::filesystem::is_directory(path.parent_path())) {
    std::cerr << str("loom: LOOM_TRACE: the folder ", path.parent_path().string(),
                     " does not exist; nothing is recorded\n");
    return;
  }
  of_environment() = {path, start_recording(recording_options({}), "LOOM_TRACE")};
  if (std::atexit(write_trace_of_environment) != 0) std::cerr << "loom: LOOM_TRACE: the trace cannot be written\n";
}

void write_trace_of_environment() noexcept {
  try {
    const auto [path, recording] = std::exchange(of_environment(), {});
    if (recording == nullptr) return;
    stop_recording(*recording);
    write_chrome_trace(path_of_rank(path, process_rank()), *recording);
  } catch (const std::exception& error) {
    std::cerr << str("loom: LOOM_TRACE: ", error.what(), "\n");
  }
}

}  // namespace profile
}  // namespace loom
