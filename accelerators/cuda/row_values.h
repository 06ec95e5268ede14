// One number a row, of any floating dtype or i64, at any stride: means, losses, targets.
#pragma once

#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/view.h>

#if defined(__CUDACC__)
namespace loom::cuda {

struct RowValues {
  char* data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;  // in bytes

  RowValues() = default;
  explicit RowValues(const View& x)  // of rank 1, or null data
      : data(x.as<char>()),
        dtype(x.dtype),
        stride(x.rank() == 0 ? 0 : x.strides[0] * static_cast<int64_t>(item_size(x.dtype))) {}

  template <class T>
  __device__ __forceinline__ T get(int64_t row) const {
    if constexpr (std::is_same_v<T, int64_t>)
      return *reinterpret_cast<const int64_t*>(data + row * stride);
    else
      return load<T>(data + row * stride, dtype);
  }
  template <class T>
  __device__ __forceinline__ void put(int64_t row, T value) const {
    store(data + row * stride, dtype, value);
  }
};

}  // namespace loom::cuda
#endif
