// All that a kernel ever sees of a tensor: plain data, nothing owned.
#pragma once

#include <cstdint>

#include <loom/accelerators/device.h>
#include <loom/accelerators/dims.h>
#include <loom/accelerators/dtype.h>

namespace loom {

struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  Device device;
  Dims shape;
  Dims strides;  // in elements; 0 repeats (broadcast)

  int64_t numel() const { return shape.numel(); }
  int rank() const { return shape.size(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * item_size(dtype); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  // True when the elements lie in row-major order without gaps (extents of 1 may have any stride).
  bool is_contiguous() const {
    int64_t expected = 1;
    for (int i = rank() - 1; i >= 0; --i) {
      if (shape[i] == 0) return true;
      if (shape[i] != 1 && strides[i] != expected) return false;
      expected *= shape[i];
    }
    return true;
  }
};

// A contiguous view over memory that somebody else owns.
inline View view_over(void* data, DType dtype, const Dims& shape, Device device = {}) {
  return {data, dtype, device, shape, row_major_strides(shape)};
}

}  // namespace loom
