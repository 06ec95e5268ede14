#include "device.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/stream.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

namespace bench {

using namespace loom;

namespace {

auto rest_of(Device device) {
  return [device] { synchronize(device); };
}

double product_flops(Device device, DType dtype, bool smoke) {
  const int64_t n = smoke ? 8 : 8192;
  const Tensor a = randn({n, n}, {dtype, device}), b = randn({n, n}, {dtype, device});
  const double flops = 2 * static_cast<double>(n * n * n);
  return flops / seconds_on(device, {[&] { matmul(a, b); }}, 0, smoke ? 0 : 0.05);
}

}  // namespace

Device device_of(const Options& options) { return Device(options.text("device", "cpu")); }

double seconds_on(Device device, const Calls& calls, double warm_up, double at_least) {
  return seconds_of_a_call(calls, warm_up, at_least, rest_of(device));
}

Times time_steps_on(Device device, int64_t warmup, int64_t steps, const std::function<void()>& step) {
  for (int64_t i = 0; i < warmup; ++i) step();
  const int64_t each = std::max<int64_t>(1, steps / windows);
  std::vector<double> taken;
  for (int64_t done = 0; done < steps; done += each) taken.push_back(window({step}, each, 0, rest_of(device)));
  Times times;
  times.mean = std::accumulate(taken.begin(), taken.end(), 0.0) / static_cast<double>(taken.size());
  times.median = median_of(std::move(taken));
  return times;
}

DeviceLimits device_limits(Device device, bool smoke) {
  const int64_t floats = smoke ? 8 : int64_t{1} << 28;
  const Tensor from = randn({floats}, {DType::f32, device}), to = empty({floats}, {DType::f32, device});
  const double seconds = seconds_on(device, {[&] { to.copy_(from); }}, 0, smoke ? 0 : 0.05);
  return {.copy = 2 * sizeof(float) * static_cast<double>(floats) / seconds,
          .flops = product_flops(device, DType::f32, smoke),
          .bf16 = product_flops(device, DType::bf16, smoke)};
}

}  // namespace bench
