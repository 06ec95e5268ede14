// Where memory lives and kernels run.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

namespace loom {

struct Device {
  enum Kind : uint8_t { cpu, cuda };
  Kind kind = cpu;
  int8_t index = 0;

  constexpr Device() = default;
  constexpr Device(Kind k, int i = 0) : kind(k), index(static_cast<int8_t>(i)) {}  // NOLINT: implicit on purpose
  Device(std::string_view name);  // NOLINT: "cpu", "cuda", "cuda:1"; throws Error for any other text
  Device(const char* name) : Device(std::string_view(name)) {}  // NOLINT
  bool operator==(const Device&) const = default;
  friend std::ostream& operator<<(std::ostream& out, Device device);
};

std::string to_string(Device device);  // "cpu", "cuda:0"

}  // namespace loom
