// IDX, the format of the MNIST family (http://yann.lecun.com/exdb/mnist): big-endian numbers behind a magic number and
// the extents.
#pragma once

#include <filesystem>

#include <loom/tensor/tensor.h>

namespace loom::data {

// IDX or IDX.gz with elements of u8, i32, f32 or f64. Truncation, trailing bytes and another magic number are Errors.
Tensor load_idx(const std::filesystem::path& path);

}  // namespace loom::data
