// What the threads of a warp or a block find out together. All of them must call; blocks are one-dimensional, and warps
// are full.
#pragma once

#include <cstdint>
#include <cstring>

#include <loom/accelerators/cuda/block.h>

#if defined(__CUDACC__)
namespace loom::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

// The value of the lane whose number differs in the bits of `mask`; T: words of 4 bytes.
template <class T>
__device__ __forceinline__ T value_across(T value, int mask) {
  static_assert(sizeof(T) % 4 == 0);
  uint32_t words[sizeof(T) / 4];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (size_t i = 0; i < sizeof(T) / 4; ++i) words[i] = __shfl_xor_sync(all_lanes, words[i], mask);
  memcpy(&value, words, sizeof(T));
  return value;
}

// The values of groups of `lanes` neighbours (a power of two up to 32) joined; where a join does not care which operand
// is the first, all of a group have the same bits.
template <class T, class Join>
__device__ __forceinline__ T across_lanes(T value, int lanes, const Join& join) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) value = join(value, value_across(value, mask));
  return value;
}

// The values of all threads of a block, joined in the order of warps: the same bits in all of them.
template <int threads, class T, class Join>
__device__ __forceinline__ T across_block(T value, const Join& join) {
  constexpr int warps = threads / warp_size;
  __shared__ T parts[warps];
  value = across_lanes(value, warp_size, join);
  __syncthreads();  // the parts of the last call have been read
  if (threadIdx.x % warp_size == 0) parts[threadIdx.x / warp_size] = value;
  __syncthreads();
  value = parts[0];
#pragma unroll
  for (int i = 1; i < warps; ++i) value = join(value, parts[i]);
  return value;
}

// The same of `team` threads: a group of lanes, or the whole block.
template <int team, int threads, class T, class Join>
__device__ __forceinline__ T across_team(T value, const Join& join) {
  static_assert(team <= warp_size || team == threads);
  if constexpr (team <= warp_size)
    return across_lanes(value, team, join);
  else
    return across_block<threads>(value, join);
}

// The same of groups whose size only the launch knows.
template <int threads, class T, class Join>
__device__ __forceinline__ T across_group(T value, int group, const Join& join) {
  return group > warp_size ? across_block<threads>(value, join) : across_lanes(value, group, join);
}

struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
// A NaN may be passed over.
struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b > a ? b : a;
  }
};
// Several sums at once.
template <class T, int count>
struct Sums {
  T sum[count];
};
struct PlusEach {
  template <class T, int count>
  __device__ Sums<T, count> operator()(Sums<T, count> a, const Sums<T, count>& b) const {
#pragma unroll
    for (int i = 0; i < count; ++i) a.sum[i] += b.sum[i];
    return a;
  }
};

}  // namespace loom::cuda
#endif
