#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom {

namespace {

using cuda::threads_per_block;

// Elements are moved as they are: T has their size. Operands: y, condition, a, b.
template <class T>
__global__ void __launch_bounds__(threads_per_block) where_kernel(cuda::Walk<4> walk) {
  cuda::for_each_item(walk.numel, [&](uint32_t i) {
    const auto at = walk.offsets(i);
    const bool first = *reinterpret_cast<const bool*>(walk.data[1] + at[1]);
    const char* const from = first ? walk.data[2] + at[2] : walk.data[3] + at[3];
    *reinterpret_cast<T*>(walk.data[0] + at[0]) = *reinterpret_cast<const T*>(from);
  });
}

}  // namespace

void Cuda::where(const View& y, const View& condition, const View& a, const View& b) {
  cuda::with_bits(y.dtype, [&]<class T> {
    cuda::for_each_walk<4>({&y, &condition, &a, &b}, cpu::Order::any, [&](const cuda::Walk<4>& walk, int64_t) {
      cuda::launch(gpu_, "where", &where_kernel<T>, cuda::grid_for(gpu_, walk.numel), threads_per_block, 0, walk);
    });
  });
}

}  // namespace loom
