// Errors name the op that the user called, also where another one finds the mistake.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include <loom/accelerators/error.h>

namespace loom {

// Calls f; an error "gather: index 7 ..." of it becomes "op: index 7 ...".
template <class F>
auto speaking_as(std::string_view op, const F& f) {
  try {
    return f();
  } catch (const Error& error) {
    const std::string_view text = error.what();
    throw Error(str(op, text.substr(std::min(text.find(':'), text.size()))));
  }
}

}  // namespace loom
