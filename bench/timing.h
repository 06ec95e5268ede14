// Times of repeated steps.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <vector>

namespace bench {

struct Times {
  double median = 0, mean = 0;  // seconds
};

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
  std::nth_element(seconds.begin(), seconds.begin() + steps / 2, seconds.end());
  times.median = seconds[static_cast<size_t>(steps / 2)];
  return times;
}

}  // namespace bench
