// Operands in a layout that cuDNN is to see: themselves, or copies.
#pragma once

#include <string>
#include <string_view>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom::cuda {

class DnnOperand {
 public:
  enum class Use : uint8_t { read, write };
  // x where it lies so already and `fits`, else a copy with the strides.
  DnnOperand(Accelerator& accelerator, Gpu& gpu, const View& x, bool fits, const Dims& strides, Use use)
      : accelerator_(accelerator), operand_(x), seen_(x) {
    seen_.strides = strides;
    if (fits && is_aligned(x.data)) return;
    copy_ = Scratch(gpu, x.bytes());
    seen_.data = copy_.as<void>();
    if (use == Use::read) accelerator.copy(seen_, x);
  }
  void* data() const { return seen_.data; }
  // To the operand what was written.
  void store() const {
    if (copy_.as<void>() != nullptr) accelerator_.copy(operand_, seen_);
  }

 private:
  Accelerator& accelerator_;
  View operand_, seen_;
  Scratch copy_;
};

// Numbers as a key of plans.
template <class T>
void append_key(std::string& key, const T& value) {
  key.append(reinterpret_cast<const char*>(&value), sizeof value);
}
inline void append_key(std::string& key, const Dims& dims) {
  for (const int64_t d : dims) append_key(key, d);
}

}  // namespace loom::cuda
