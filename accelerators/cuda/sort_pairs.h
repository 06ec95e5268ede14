// Sorting pairs of numbers on the device.
#pragma once

#include <cstdint>
#include <limits>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

// Sorts n pairs by their keys, ascending and stable, in this thread's current stream. Keys that are known to lie in
// [0, bound) take fewer passes; without a bound they may be any numbers.
void sort_pairs(Gpu& gpu, int64_t* keys, int64_t* positions, int64_t n,
                int64_t bound = std::numeric_limits<int64_t>::max());

}  // namespace loom::cuda
