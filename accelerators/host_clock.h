// The host's time, which all processes of a machine have in common.
#pragma once

#include <chrono>
#include <cstdint>

namespace loom {

inline int64_t host_nanoseconds() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace loom
