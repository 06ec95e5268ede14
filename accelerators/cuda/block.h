// What kernels need beyond C++: how they are started, and memory that the threads of a block share.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#if defined(__CUDACC__)
namespace loom::cuda {

// The block's memory whose size the launch gave.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

template <class... Parameters, class... Args>
void start_kernel(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, size_t shared, cudaStream_t stream,
                  const Args&... args) {
  kernel<<<blocks, threads, shared, stream>>>(static_cast<Parameters>(args)...);
}

}  // namespace loom::cuda
#endif
