// Times of repeated steps and calls.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

namespace bench {

struct Times {
  double median = 0, mean = 0;  // seconds
};

inline double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Runs step() `warmup` times, then `steps` times by the clock. The peers (peers/timing.py) do the same.
template <class F>
Times time_steps(int64_t warmup, int64_t steps, const F& step) {
  using Clock = std::chrono::steady_clock;
  for (int64_t i = 0; i < warmup; ++i) step();
  std::vector<double> seconds;
  seconds.reserve(static_cast<size_t>(steps));
  for (int64_t i = 0; i < steps; ++i) {
    const auto start = Clock::now();
    step();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  Times times;
  times.mean = std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(steps);
  times.median = median_of(std::move(seconds));
  return times;
}

using Calls = std::vector<std::function<void()>>;

// Seconds of one of at least `count` calls by turns, that fill `at_least` seconds; rest() returns when none is at work.
template <class Rest>
double window(const Calls& calls, int64_t count, double at_least, const Rest& rest) {
  using Clock = std::chrono::steady_clock;
  int64_t done = 0;
  double seconds = 0;
  rest();
  const auto start = Clock::now();
  do {
    size_t next = 0;
    for (int64_t i = 0; i < count; ++i) {
      calls[next]();
      next = next + 1 == calls.size() ? 0 : next + 1;
    }
    rest();
    done += count;
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  } while (seconds < at_least);
  return seconds / static_cast<double>(done);
}

constexpr int windows = 5;

// Seconds of a call: after each has run once, and then all for `warm_up` seconds, the median of windows of at least
// `at_least` seconds and a call each, so that a window in which the machine stood still is no result.
// peers/timing.py does the same.
template <class Rest>
double seconds_of_a_call(const Calls& calls, double warm_up, double at_least, const Rest& rest) {
  constexpr double most = 1e6, more = 1.1;  // a window that ends too soon is filled with as many calls once more
  for (const auto& call : calls) call();
  auto count = static_cast<double>(calls.size()), warm = 0.0, fitting = 1.0;
  do {
    const double once = window(calls, static_cast<int64_t>(count), 0, rest);
    warm += once * count;
    fitting = std::clamp(std::ceil(more * at_least / std::max(once, 1e-9)), 1.0, most);
    count = std::min(2 * count, fitting);
  } while (warm < warm_up);
  std::vector<double> taken(windows);
  for (double& seconds : taken) seconds = window(calls, static_cast<int64_t>(fitting), at_least, rest);
  return median_of(std::move(taken));
}

}  // namespace bench
