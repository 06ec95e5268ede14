// Sorting of pairs on the device, by NVIDIA's CUB, which is compiled in device_sort.cu alone.
#pragma once

#include <cstdint>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

// Keys with a value each, in device memory, and as much room again.
struct Pairs {
  uint64_t *keys, *other_keys;
  uint32_t *values, *other_values;
  int64_t count;
};

// Sorts by the lowest `bits` of the keys in this thread's stream; pairs whose keys are equal there stay in order. Where
// the result lies in the other room, the pointers are exchanged.
void sort_pairs(Gpu& gpu, Pairs& pairs, int bits);

}  // namespace loom::cuda
