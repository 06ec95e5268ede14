#include "device.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/stream.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

namespace bench {

using namespace loom;

namespace {

constexpr int samples = 5;

// Seconds of `count` calls, from a device at rest to a device at rest.
template <class F>
double seconds_between_rests(Device device, int64_t count, const F& f) {
  using Clock = std::chrono::steady_clock;
  synchronize(device);
  const auto start = Clock::now();
  for (int64_t i = 0; i < count; ++i) f(i);
  synchronize(device);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double product_flops(Device device, DType dtype, bool smoke) {
  const int64_t n = smoke ? 8 : 8192;
  const Tensor a = randn({n, n}, {dtype, device}), b = randn({n, n}, {dtype, device});
  const double flops = 2 * static_cast<double>(n * n * n);
  return flops / seconds_on(device, {[&] { matmul(a, b); }}, smoke ? 0 : 0.05);
}

}  // namespace

Device device_of(const Options& options) { return Device(options.text("device", "cpu")); }

double seconds_on(Device device, const std::vector<std::function<void()>>& calls, double at_least) {
  for (const auto& call : calls) call();  // what is made once is made before the clock starts
  const auto turn = [&](int64_t i) { calls[static_cast<size_t>(i) % calls.size()](); };
  const auto rounds = static_cast<int64_t>(calls.size());
  const double once = seconds_between_rests(device, rounds, turn) / static_cast<double>(rounds);
  const int64_t count = std::clamp<int64_t>(static_cast<int64_t>(at_least / once), 1, 1'000'000);
  std::vector<double> taken(samples);
  for (double& seconds : taken) seconds = seconds_between_rests(device, count, turn) / static_cast<double>(count);
  return median_of(taken);
}

Times time_steps_on(Device device, int64_t warmup, int64_t steps, const std::function<void()>& step) {
  for (int64_t i = 0; i < warmup; ++i) step();
  const int64_t each = std::max<int64_t>(1, steps / samples);
  std::vector<double> taken;
  for (int64_t done = 0; done < steps; done += each)
    taken.push_back(seconds_between_rests(device, each, [&](int64_t) { step(); }) / static_cast<double>(each));
  Times times;
  times.mean = std::accumulate(taken.begin(), taken.end(), 0.0) / static_cast<double>(taken.size());
  times.median = median_of(taken);
  return times;
}

DeviceLimits device_limits(Device device, bool smoke) {
  const int64_t floats = smoke ? 8 : int64_t{1} << 28;
  const Tensor from = randn({floats}, {DType::f32, device}), to = empty({floats}, {DType::f32, device});
  const double seconds = seconds_on(device, {[&] { to.copy_(from); }}, smoke ? 0 : 0.05);
  return {.copy = 2 * sizeof(float) * static_cast<double>(floats) / seconds,
          .flops = product_flops(device, DType::f32, smoke),
          .bf16 = product_flops(device, DType::bf16, smoke)};
}

}  // namespace bench
