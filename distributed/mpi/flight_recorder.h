// What a group is doing and did last, for the watchdog.
#pragma once

#include <algorithm>
#include <array>
#include <mutex>
#include <string>

#include <loom/distributed/collective.h>

namespace loom::mpi {

class FlightRecorder {
 public:
  struct Snapshot {
    int64_t started = 0;  // collectives, the comparisons of checked mode among them
    bool running = false;
    Fingerprint current;  // or the last one
    int64_t completed() const { return running ? started - 1 : started; }
  };

  void begin(const Fingerprint& f) {
    const std::lock_guard lock(mutex_);
    state_ = {state_.started + 1, true, f};
    last_[static_cast<size_t>(state_.started) % last_.size()] = f;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    state_.running = false;
  }
  Snapshot snapshot() const {
    const std::lock_guard lock(mutex_);
    return state_;
  }
  std::string last() const {  // oldest first
    const std::lock_guard lock(mutex_);
    std::string out;
    const auto held = static_cast<int64_t>(last_.size());
    for (int64_t i = std::max<int64_t>(1, state_.started - held + 1); i <= state_.started; ++i)
      out += str(out.empty() ? "" : ", ", to_string(last_[static_cast<size_t>(i % held)]));
    return out;
  }

 private:
  mutable std::mutex mutex_;
  Snapshot state_;
  std::array<Fingerprint, 8> last_{};
};

}  // namespace loom::mpi
