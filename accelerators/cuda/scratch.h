// Memory of a kernel's own, from the pool of the stream that it runs in.
#pragma once

#include <cstddef>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

class Scratch {
 public:
  Scratch(Gpu& gpu, size_t bytes)
      : gpu_(gpu), data_(bytes > 0 ? gpu.memory().allocate(bytes, gpu.stream()) : nullptr) {}
  ~Scratch() {
    if (data_ != nullptr) gpu_.memory().release(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  Gpu& gpu_;
  void* data_;
};

}  // namespace loom::cuda
