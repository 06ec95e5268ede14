// What both sides of the row fork_join have in common: next to nothing is handed to two threads, over and over.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "timing.h"

namespace bench {

// What the caller does between two times; the other thread has nothing to do then.
struct Pause {
  const char* name;
  int64_t microseconds;
  bool asleep;
  int64_t rounds;
};
constexpr Pause pauses[] = {{"at once again", 0, false, 0},
                            {"after 20 us of the caller's own work", 20, false, 5000},
                            {"after 1 ms of the caller's own work", 1000, false, 500},
                            {"after 1 ms of sleep", 1000, true, 500}};

// Where two threads wait for each other: what is done only when both are at work. Not for ever, as one thread may be
// given both items.
class Meeting {
 public:
  void open() { here_.store(0, std::memory_order_relaxed); }
  void come() {
    constexpr auto most = std::chrono::milliseconds(5);
    here_.fetch_add(1);
    for (const auto end = std::chrono::steady_clock::now() + most; std::chrono::steady_clock::now() < end;)
      for (int i = 0; i < 64; ++i)
        if (here_.load() == 2) return;
  }

 private:
  std::atomic<int> here_ = 0;
};

inline void rest(const Pause& pause) {
  const std::chrono::microseconds time(pause.microseconds);
  if (pause.asleep) return std::this_thread::sleep_for(time);
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

// Median seconds of a call after the pause.
inline double seconds_after(const Pause& pause, const std::function<void()>& call, bool smoke) {
  if (smoke) return call(), 0;
  constexpr double warm_up = 0.05, at_least = 0.01;
  if (pause.microseconds == 0) return seconds_of_a_call({call}, warm_up, at_least, [] {});
  const auto time_one = [&] {
    rest(pause);
    const auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  for (int64_t i = 0; i < pause.rounds / 10; ++i) time_one();
  std::vector<double> taken(static_cast<size_t>(pause.rounds));
  for (double& seconds : taken) seconds = time_one();
  return median_of(std::move(taken));
}

// fork(item): runs the item on each of two threads, once. report(case, seconds).
template <class Fork, class Report>
void measure_forks(const Fork& fork, const Report& report, bool smoke) {
  Meeting meeting;
  for (const Pause& pause : pauses) {
    const auto nothing = [&] { fork([] {}); };
    const auto both = [&] {
      meeting.open();
      fork([&] { meeting.come(); });
    };
    report(std::string("nothing, ") + pause.name, seconds_after(pause, nothing, smoke));
    report(std::string("both at work, ") + pause.name, seconds_after(pause, both, smoke));
  }
}

}  // namespace bench
