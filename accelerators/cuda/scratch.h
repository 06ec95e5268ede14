// Device memory for the time of one call, in this thread's stream.
#pragma once

#include <cstddef>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

// Released when the kernels that use it have been started: what runs later in the stream may have it then.
class Scratch {
 public:
  Scratch(Gpu& gpu, size_t bytes)
      : gpu_(gpu), data_(bytes == 0 ? nullptr : gpu.memory().allocate(bytes, gpu.stream())) {}
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
