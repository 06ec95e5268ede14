#include <loom/accelerators/cuda/device_sort.h>

#include <cub/device/device_radix_sort.cuh>

#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom::cuda {

void sort_pairs(Gpu& gpu, Pairs& pairs, int bits) {
  if (pairs.count < 2 || bits == 0) return;
  const DeviceScope scope(gpu.index());
  cub::DoubleBuffer<uint64_t> keys(pairs.keys, pairs.other_keys);
  cub::DoubleBuffer<uint32_t> values(pairs.values, pairs.other_values);
  const auto sort = [&](void* memory, size_t& bytes) {
    check_cuda(cub::DeviceRadixSort::SortPairs(memory, bytes, keys, values, pairs.count, 0, bits, gpu.stream()),
               "sort");
  };
  size_t bytes = 0;
  sort(nullptr, bytes);
  const Scratch memory(gpu, bytes + 1);  // null would ask for the size again
  sort(memory.as<void>(), bytes);
  pairs = {keys.Current(), keys.Alternate(), values.Current(), values.Alternate(), pairs.count};
}

}  // namespace loom::cuda
