// NumPy's .npy: one array in one file (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#pragma once

#include <filesystem>

#include <loom/tensor/tensor.h>

namespace loom {

// Versions 1.0, 2.0 and 3.0, either byte order, C and Fortran order (the tensor is row-major). Pickled objects,
// structured dtypes, dtypes without a counterpart, truncation and trailing bytes are Errors.
Tensor load_npy(const std::filesystem::path& path);

// Version 1.0, row-major; the file is replaced as a whole. NumPy has no bf16: it is written as f32.
void save_npy(const std::filesystem::path& path, const Tensor& x);

}  // namespace loom
