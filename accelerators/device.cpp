#include <charconv>
#include <ostream>

#include <loom/accelerators/device.h>
#include <loom/accelerators/error.h>

namespace loom {

Device::Device(std::string_view name) {
  if (name == "cpu") return;
  if (name == "cuda") {
    kind = cuda;
    return;
  }
  int number = -1;
  if (name.starts_with("cuda:")) {
    const auto [end, status] = std::from_chars(name.data() + 5, name.data() + name.size(), number);
    if (status != std::errc() || end != name.data() + name.size()) number = -1;
  }
  check(number >= 0 && number < 128, "unknown device '", name, "'; expected cpu, cuda or cuda:N");
  kind = cuda;
  index = static_cast<int8_t>(number);
}

std::string to_string(Device device) {
  return device.kind == Device::cpu ? "cpu" : str("cuda:", static_cast<int>(device.index));
}

std::ostream& operator<<(std::ostream& out, Device device) { return out << to_string(device); }

}  // namespace loom
