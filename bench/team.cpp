#include "team.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include <loom/accelerators/cores.h>

namespace bench {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto at_least = std::chrono::milliseconds(50);
constexpr int rounds = 10;

void stay_on(int core) {
  constexpr size_t most = 8192;
  std::vector<cpu_set_t> mask(most / CPU_SETSIZE);
  const size_t bytes = mask.size() * sizeof(cpu_set_t);
  CPU_SET_S(static_cast<size_t>(core), bytes, mask.data());
  sched_setaffinity(0, bytes, mask.data());  // some containers refuse
}

// Where all wait for the last one. They do not sleep: waking takes longer than what is measured.
class Meeting {
 public:
  explicit Meeting(int threads) : threads_(threads) {}
  void wait() {
    const int round = round_.load(std::memory_order_acquire);
    if (come_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      come_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
    }
    while (round_.load(std::memory_order_acquire) == round) std::this_thread::yield();
  }

 private:
  const int threads_;
  std::atomic<int> come_ = 0, round_ = 0;
};

// From the first one's start to the last one's end: who has been waited for may begin later than the others.
double seconds_of_all(const std::vector<std::pair<Clock::time_point, Clock::time_point>>& worked) {
  auto [first, last] = worked[0];
  for (const auto& [start, end] : worked) first = std::min(first, start), last = std::max(last, end);
  return std::chrono::duration<double>(last - first).count();
}

}  // namespace

void on_own_cores(int threads, const std::function<void(int)>& f) {
  const std::vector<int> cores = loom::available_core_ids();
  std::vector<std::jthread> team;
  team.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i)
    team.emplace_back([&, i] {
      stay_on(cores[static_cast<size_t>(i) % cores.size()]);
      f(i);
    });
}

double best_seconds(int threads, const std::function<void(int)>& f) {
  Meeting meeting(threads);
  std::vector<std::pair<Clock::time_point, Clock::time_point>> worked(static_cast<size_t>(threads));
  double best = std::numeric_limits<double>::max();
  bool done = false;
  on_own_cores(threads, [&](int i) {
    const auto begin = Clock::now();
    for (int round = 0;; ++round) {
      if (i == 0) done = round >= rounds && Clock::now() - begin >= at_least;
      meeting.wait();
      if (done) return;
      auto& [start, end] = worked[static_cast<size_t>(i)];
      start = Clock::now();
      f(i);
      end = Clock::now();
      meeting.wait();
      if (i == 0) best = std::min(best, seconds_of_all(worked));
    }
  });
  return best;
}

}  // namespace bench
