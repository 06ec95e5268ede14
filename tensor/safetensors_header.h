// The header of a .safetensors file: a JSON text that says where each tensor lies. Reading it is where hostile or
// damaged files are refused, so it is apart from the input and output.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <loom/accelerators/dtype.h>

namespace loom {

struct SafetensorsEntry {
  std::string dtype;  // as written: "F32", "BF16", also those that no tensor here can have ("F8_E4M3")
  std::vector<uint64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the data
};

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

inline constexpr uint64_t safetensors_header_limit = 100'000'000;

// Parses and validates the header text of a file with `data_bytes` bytes after it. `context` starts the errors; these
// end with the reference implementation's name of the condition.
SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_bytes, const std::string& context);
// The text without padding; tensors in the order of their data.
std::string format_safetensors_header(const SafetensorsHeader& header, const std::vector<std::string>& order);

std::string safetensors_dtype(DType t);
// Throws Error for a dtype that Loom lacks.
DType dtype_from_safetensors(const std::string& name, const std::string& context);

}  // namespace loom
