// In which dtypes a module computes.
#pragma once

#include <string>
#include <string_view>

#include <loom/accelerators/dtype.h>

namespace loom {

// A precision as data: what module, inputs and new tensors become. Only floating tensors are converted, and outputs
// stay as they are computed.
struct Precision {
  std::string name;
  DType dtype = DType::f32;
};

// By Fabric's name ("32-true", "64-true" or their aliases "32", "64"); throws Error with the list for any other.
Precision make_precision(std::string_view name);

}  // namespace loom
