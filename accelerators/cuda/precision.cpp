#include <loom/accelerators/cuda/precision.h>

#include <cstdlib>
#include <string_view>

namespace loom::cuda {

namespace {

bool is_set(const char* name, std::string_view value) {
  const char* const text = std::getenv(name);
  return text != nullptr && text == value;
}

}  // namespace

std::atomic<bool>& allows_tf32() {
  static std::atomic<bool> allowed = is_set("LOOM_TF32", "1");
  return allowed;
}

std::atomic<bool>& allows_any_order() {
  static std::atomic<bool> allowed = is_set("LOOM_DETERMINISTIC", "0");
  return allowed;
}

}  // namespace loom::cuda
