// The second stage of sums over rows: what the blocks of the first one have come to, in their order.
#pragma once

#include <array>

#include <loom/accelerators/cuda/collective.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/row_values.h>

#if defined(__CUDACC__)
namespace loom::cuda {

inline constexpr int partial_columns = 8;  // that a block adds up: neighbours that fill a sector of memory

// Sums of arrays [count, n] over their first dimension. Null ones are left out.
template <class T, size_t arrays>
struct Partials {
  std::array<const T*, arrays> parts{};
  std::array<RowValues, arrays> sums{};
};

template <class T, size_t arrays>
__global__ void __launch_bounds__(threads_per_block) add_parts_kernel(Partials<T, arrays> p, int64_t count, int64_t n) {
  __shared__ T own[threads_per_block];
  const T* const parts = p.parts[blockIdx.y];
  if (parts == nullptr) return;
  const int64_t column = int64_t{blockIdx.x} * partial_columns + threadIdx.x % partial_columns;
  constexpr int together = threads_per_block / partial_columns;
  T sum = 0;
  if (column < n) {
#pragma unroll 4
    for (int64_t i = threadIdx.x / partial_columns; i < count; i += together) sum += parts[i * n + column];
  }
  own[threadIdx.x] = sum;
  for (int half = together / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half * partial_columns)
      own[threadIdx.x] += own[threadIdx.x + half * partial_columns];
  }
  if (threadIdx.x < partial_columns && column < n) p.sums[blockIdx.y].put(column, own[threadIdx.x]);
}

template <class T, size_t arrays>
void add_parts(Gpu& gpu, const char* name, const Partials<T, arrays>& p, int64_t count, int64_t n) {
  if (n == 0) return;
  const dim3 blocks(static_cast<unsigned>((n + partial_columns - 1) / partial_columns), arrays);
  launch(gpu, name, &add_parts_kernel<T, arrays>, blocks, threads_per_block, 0, p, count, n);
}

}  // namespace loom::cuda
#endif
