// The dtypes that the norms compute in and take.
#pragma once

#include <string>

#include <loom/tensor/tensor.h>

namespace loom {

// Statistics are kept in f32, in f64 for f64.
inline DType statistics_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

// Kernels take parameters and statistics in x's dtype or in that of the statistics (mixed precision).
inline void check_norm_dtype(const char* op, const char* what, const Tensor& given, const Tensor& x) {
  const DType wide = statistics_dtype(x.dtype());
  check(given.dtype() == x.dtype() || given.dtype() == wide, op, ": given ", what, " of ", given.dtype(), " and x of ",
        x.dtype(), ", expected ", what, " to be ", x.dtype(), wide == x.dtype() ? std::string() : str(" or ", wide));
}

}  // namespace loom
