// In a file of its own, as CUB takes long to compile.
#include <loom/accelerators/cuda/sort_pairs.h>

#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom::cuda {

void sort_pairs(Gpu& gpu, int64_t* keys, int64_t* positions, int64_t n, int64_t bound) {
  if (n < 2) return;
  const DeviceScope scope(gpu.index());
  const cudaStream_t stream = gpu.stream();
  const int bits = bound == std::numeric_limits<int64_t>::max()
                       ? 64
                       : std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(bound - 1))));
  const size_t bytes = static_cast<size_t>(n) * sizeof(int64_t);
  const Scratch other_keys(gpu, bytes), other_positions(gpu, bytes);
  cub::DoubleBuffer<int64_t> by(keys, other_keys.as<int64_t>()), with(positions, other_positions.as<int64_t>());
  size_t needed = 0;
  check_cuda(cub::DeviceRadixSort::SortPairs(nullptr, needed, by, with, n, 0, bits, stream), "sort");
  const Scratch work(gpu, std::max<size_t>(needed, 1));
  check_cuda(cub::DeviceRadixSort::SortPairs(work.as<void>(), needed, by, with, n, 0, bits, stream), "sort");
  if (by.Current() != keys)
    check_cuda(cudaMemcpyAsync(keys, by.Current(), bytes, cudaMemcpyDeviceToDevice, stream), "sort");
  if (with.Current() != positions)
    check_cuda(cudaMemcpyAsync(positions, with.Current(), bytes, cudaMemcpyDeviceToDevice, stream), "sort");
}

}  // namespace loom::cuda
