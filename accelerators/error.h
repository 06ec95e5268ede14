// The one error type, and the two functions that raise it.
// A message reads: op, what was given, what was expected, which index or rank, and the usual cause where it is known.
#pragma once

#include <concepts>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace loom {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace text {

std::string number(double value);  // shortest text that reads back as the same double

template <class T>
void append(std::string& out, const T& value) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    out += std::string_view(value);
  } else if constexpr (std::is_same_v<T, char>) {
    out += value;
  } else if constexpr (std::is_same_v<T, bool>) {
    out += value ? "true" : "false";
  } else if constexpr (std::is_integral_v<T>) {
    out += std::to_string(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    out += number(static_cast<double>(value));
  } else {
    out += to_string(value);  // found by argument-dependent look-up: Dims, DType, Device, View ...
  }
}

}  // namespace text

// Concatenates the texts of its arguments: str("add: shapes ", a.shape(), " and ", b.shape()).
template <class... Args>
std::string str(const Args&... args) {
  std::string out;
  (text::append(out, args), ...);
  return out;
}

// Throws Error with the concatenated text.
template <class... Args>
[[noreturn]] void fail(const Args&... args) {
  throw Error(str(args...));
}

// Throws Error with the concatenated text unless the condition holds. The text is built only on failure.
template <class... Args>
void check(bool condition, const Args&... args) {
  if (!condition) [[unlikely]]
    fail(args...);
}

}  // namespace loom
