#include <charconv>

#include <loom/accelerators/error.h>

namespace loom::text {

std::string number(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return {buffer, result.ptr};
}

}  // namespace loom::text
