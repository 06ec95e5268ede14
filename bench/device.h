// The device that a row runs on (device=cpu, cuda), its clock and its limits.
#pragma once

#include <functional>

#include <loom/accelerators/device.h>

#include "row.h"
#include "timing.h"

namespace bench {

loom::Device device_of(const Options& options);

// Seconds of a call (timing.h), the windows between two moments at which the device has nothing left to do: what the
// last one waits is little of that. The calls take turns, so that inputs do not come from a cache that is smaller than
// all of them.
double seconds_on(loom::Device device, const Calls& calls, double warm_up, double at_least);

// Runs step() `warmup` times, then `steps` times in some parts between which the device is waited for: the host runs
// ahead within one.
Times time_steps_on(loom::Device device, int64_t warmup, int64_t steps, const std::function<void()>& step);

// What the device can do at most, measured. Of a GPU: bytes read and written a second in a copy of 1 GiB, operations a
// second in products of 8192 x 8192 random matrices (tiny in a smoke run). huge_copy: machine_limits.h; 0 on a GPU.
struct DeviceLimits {
  double copy = 0, huge_copy = 0, flops = 0, bf16 = 0;
};
DeviceLimits device_limits(loom::Device device, bool smoke);

}  // namespace bench
