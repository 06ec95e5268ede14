#include <loom/accelerators/cuda/precision.h>

#include <cstdlib>
#include <string_view>

namespace loom::cuda {

std::atomic<bool>& allows_tf32() {
  static std::atomic<bool> allowed = [] {
    const char* const text = std::getenv("LOOM_TF32");
    return text != nullptr && std::string_view(text) == "1";
  }();
  return allowed;
}

}  // namespace loom::cuda
