// Errors name the op that the user called, also where another one finds the mistake.
#pragma once

#include <string>
#include <string_view>

#include <loom/accelerators/error.h>

namespace loom {

// What an error says after the name of the op that threw it: "gather: index 7 ..."; all of it where there is no name.
inline std::string_view without_op(std::string_view text) {
  const size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_");
  const bool named = end != 0 && end != std::string_view::npos && text.substr(end).starts_with(": ");
  return named ? text.substr(end + 2) : text;
}

// Calls f; an error "gather: index 7 ..." of it becomes "op: index 7 ...".
template <class F>
auto speaking_as(std::string_view op, const F& f) {
  try {
    return f();
  } catch (const Error& error) {
    throw Error(str(op, ": ", without_op(error.what())));
  }
}

}  // namespace loom
