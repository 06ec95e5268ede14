// Starting kernels: sizes of grids, and errors of launches.
#pragma once

#include <algorithm>
#include <cstdint>

#include <loom/accelerators/cuda/block.h>
#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/view.h>

namespace loom::cuda {

inline constexpr int threads_per_block = 256;
// Blocks a multiprocessor that keep the memory busy; more only add launches of blocks.
inline constexpr int blocks_per_multiprocessor = 16;

// The GPU that a view lies on. All of a kernel's views lie on one.
inline Gpu& gpu_of(const View& view) { return gpu(view.device.index); }

// Blocks for `items` pieces of work, which threads take in strides of the whole grid.
inline int grid_for(const Gpu& gpu, int64_t items, int threads = threads_per_block) {
  const int64_t wanted = (items + threads - 1) / threads;
  return static_cast<int>(std::clamp<int64_t>(wanted, 1, int64_t{gpu.multiprocessors()} * blocks_per_multiprocessor));
}

// kernel<<<blocks, threads, shared bytes>>>(args...) in this thread's stream of the GPU. `name` is for errors.
template <class... Parameters, class... Args>
void launch(Gpu& gpu, const char* name, void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared,
            const Args&... args) {
  const DeviceScope scope(gpu.index());
  start_kernel(kernel, blocks, threads, shared, gpu.stream(), args...);
  check_cuda(cudaPeekAtLastError(), name);
}

#if defined(__CUDACC__)
// Calls f(i) for the items that this thread is to do.
template <class Index, class F>
__device__ __forceinline__ void for_each_item(Index items, const F& f) {
  const Index step = static_cast<Index>(gridDim.x) * blockDim.x;
  for (Index i = static_cast<Index>(blockIdx.x) * blockDim.x + threadIdx.x; i < items; i += step) f(i);
}
#endif

}  // namespace loom::cuda
