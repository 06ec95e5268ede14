// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <loom/accelerators/error.h>

namespace loom::testing {

// The text of the Error that f throws; empty if none. Anything else goes on and fails the test: errors are of one type.
template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace loom::testing
