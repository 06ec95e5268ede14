// Memory that an op needs while it runs.
#pragma once

#include <cstddef>
#include <utility>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

// Taken in this thread's stream and given back at the end of the scope: what the stream does next may have it. bytes
// may be 0 (gives null).
class Scratch {
 public:
  Scratch() = default;
  Scratch(Gpu& gpu, size_t bytes) : gpu_(&gpu), block_(bytes > 0 ? gpu.allocate(bytes) : nullptr) {}
  ~Scratch() {
    if (block_ != nullptr) gpu_->release(block_);
  }
  Scratch(Scratch&& other) noexcept : gpu_(other.gpu_), block_(other.block_) { other.block_ = nullptr; }
  Scratch& operator=(Scratch&& other) noexcept {
    std::swap(gpu_, other.gpu_);
    std::swap(block_, other.block_);
    return *this;
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(block_);
  }

 private:
  Gpu* gpu_ = nullptr;
  void* block_ = nullptr;
};

}  // namespace loom::cuda
