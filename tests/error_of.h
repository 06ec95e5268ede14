// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <string>

namespace loom::testing {

// The text of what f throws; empty if nothing.
template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace loom::testing
