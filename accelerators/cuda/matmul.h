// One product of matrices, or of batches of them, as cuBLASLt takes it: the only door to that library.
#pragma once

#include <cstdint>
#include <string>

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/dtype.h>

namespace loom::cuda {

// A matrix in memory: rows `leading` elements apart whose elements are adjacent; where it is transposed, it is the
// columns that are. Matrices of a batch are `step` elements apart.
struct MatrixLayout {
  bool transposed = false;
  int64_t leading = 1, step = 0;
};

// c [m, n] = alpha * a [m, k] @ b [k, n] + beta * c + bias [n], all extents at least 1; c is not transposed. bias: of
// c's dtype, dense, or null.
struct Matmul {
  DType in = DType::f32, out = DType::f32;  // of a and b; of c
  int64_t m = 1, n = 1, k = 1, batches = 1;
  MatrixLayout a_layout, b_layout, c_layout;
  const void *a = nullptr, *b = nullptr, *bias = nullptr;
  void* c = nullptr;
  double alpha = 1, beta = 0;
};

// Starts the product in this thread's stream. False where the library takes no bias for such a product: nothing has
// been done then.
bool matmul(Gpu& gpu, const Matmul& p);

std::string matmul_library();  // its name and version

}  // namespace loom::cuda
