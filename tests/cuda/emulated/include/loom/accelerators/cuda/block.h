// SPDX-License-Identifier: Apache-2.0
// The threads of one block, played by fibers of one thread of the host: what kernels say to each other. Stands in for
// accelerators/cuda/block.h.
//
// A barrier that not all threads reach ends the test, as it would hang a GPU; fibers run in a different order each
// round, so that what depends on their order shows.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#include <cuda_runtime_api.h>
#include <queues.h>

namespace loom::cuda::emulated {

struct Place {
  dim3 thread, block, threads, blocks;
};
extern thread_local Place place;

void run(dim3 blocks, dim3 threads, size_t shared, const std::function<void()>& kernel);
void* dynamic_shared();
void block_barrier();
// The value (up to 8 bytes) that lane `from` of this warp gave in the same call; all lanes of the warp make it.
uint64_t exchange(uint64_t value, int from);
uint32_t ballot(bool value);

}  // namespace loom::cuda::emulated

#define threadIdx (loom::cuda::emulated::place.thread)
#define blockIdx (loom::cuda::emulated::place.block)
#define blockDim (loom::cuda::emulated::place.threads)
#define gridDim (loom::cuda::emulated::place.blocks)

inline void __syncthreads() { loom::cuda::emulated::block_barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { loom::cuda::emulated::ballot(true); }
inline unsigned __ballot_sync(unsigned, bool value) { return loom::cuda::emulated::ballot(value); }
inline bool __any_sync(unsigned, bool value) { return loom::cuda::emulated::ballot(value) != 0; }
template <class T>
T emulated_shuffle(T value, int from) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = loom::cuda::emulated::exchange(bits, from);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
inline int emulated_lane() {
  const auto& p = loom::cuda::emulated::place;
  return static_cast<int>((p.thread.x + p.threads.x * (p.thread.y + p.threads.y * p.thread.z)) % 32);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulated_shuffle(value, emulated_lane() ^ mask);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by) {
  const int from = emulated_lane() + static_cast<int>(by);
  return emulated_shuffle(value, from < 32 ? from : emulated_lane());
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned by) {
  const int from = emulated_lane() - static_cast<int>(by);
  return emulated_shuffle(value, from >= 0 ? from : emulated_lane());
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return emulated_shuffle(value, from % 32);
}

// Launches do not overlap, and fibers change at barriers alone.
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old < value ? value : old;
  return old;
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = value;
  return old;
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}
template <class T>
T atomicCAS_system(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return atomicCAS(at, expected, value);
}
template <class T>
T atomicExch_system(T* at, std::type_identity_t<T> value) {
  return atomicExch(at, value);
}
inline void __threadfence() {}
inline void __threadfence_system() {}
template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcs(const T* at) {
  return *at;
}
template <class T>
void __stcs(T* at, T value) {
  *at = value;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __uint_as_float(uint32_t x) {
  float y;
  std::memcpy(&y, &x, 4);
  return y;
}
inline int __float_as_int(float x) {
  int y;
  std::memcpy(&y, &x, 4);
  return y;
}
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }

namespace loom::cuda {

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulated::dynamic_shared());
}

template <class... Parameters, class... Args>
void start_kernel(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared, cudaStream_t stream,
                  const Args&... args) {
  emulated::enqueue(stream, [=, given = std::tuple<std::remove_cv_t<Parameters>...>(args...)] {
    emulated::run(blocks, threads, shared, [&] { std::apply(kernel, given); });
  });
}

}  // namespace loom::cuda
