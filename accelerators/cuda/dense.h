// Operands in row-major order without gaps: where they are, if they lie so, or copied.
#pragma once

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom::cuda {

inline bool lies_dense(const View& x, DType dtype) {
  return x.data == nullptr || x.numel() == 0 || (x.dtype == dtype && x.is_contiguous());
}

// A view to read, as numbers of `dtype`. Null data stays null.
class DenseInput {
 public:
  DenseInput(Gpu& gpu, Accelerator& kernels, const View& x, DType dtype)
      : dense_(lies_dense(x, dtype)),
        copy_(gpu, dense_ ? 0 : static_cast<size_t>(x.numel()) * item_size(dtype)),
        data_(dense_ ? x.data : copy_.as<void>()) {
    if (!dense_) kernels.copy(view_over(data_, dtype, x.shape, x.device), x);
  }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }

 private:
  bool dense_;
  Scratch copy_;
  void* data_;
};

// A view to write; store() puts into it what has been written elsewhere.
class DenseOutput {
 public:
  DenseOutput(Gpu& gpu, Accelerator& kernels, const View& y, DType dtype)
      : kernels_(kernels),
        y_(y),
        dtype_(dtype),
        dense_(lies_dense(y, dtype)),
        copy_(gpu, dense_ ? 0 : static_cast<size_t>(y.numel()) * item_size(dtype)) {}
  template <class T>
  T* as() const {
    return dense_ ? y_.as<T>() : copy_.as<T>();
  }
  void store() const {
    if (!dense_) kernels_.copy(y_, view_over(copy_.as<void>(), dtype_, y_.shape, y_.device));
  }

 private:
  Accelerator& kernels_;
  View y_;
  DType dtype_;
  bool dense_;
  Scratch copy_;
};

}  // namespace loom::cuda
