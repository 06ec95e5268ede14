// One product of matrices, or of batches of them, as cuBLASLt takes it: the only door to that library.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/dtype.h>
#include <loom/accelerators/fused.h>

namespace loom::cuda {

// A matrix in memory: rows `leading` elements apart whose elements are adjacent; where it is transposed, it is the
// columns that are. Matrices of a batch are `step` elements apart.
struct MatrixLayout {
  bool transposed = false;
  int64_t leading = 1, step = 0;
};

// The matrix of x's last two dimensions; none where rows overlap or no dimension is dense.
std::optional<MatrixLayout> layout_of(const View& x);

// What a product does beside multiplying.
enum class Epilogue : uint8_t {
  none,
  gelu,       // aux = c, then c = gelu_tanh(c)
  gelu_grad,  // c times gelu_tanh'(aux); sums [n]: of c's columns
  row_sums,   // sums [m]: of a's rows
};

// Operands of 8 bits in place of `in`: a not transposed, b transposed. Their numbers are to be multiplied with one f32
// each.
struct Fp8Operands {
  Fp8 a = Fp8::e4m3, b = Fp8::e4m3;
  const float *a_inverse = nullptr, *b_inverse = nullptr;
  bool fast = false;  // sums in fewer digits
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
  Epilogue epilogue = Epilogue::none;
  void *aux = nullptr, *sums = nullptr;  // of c's dtype: [m, n] dense, as c is then; or null
  std::optional<Fp8Operands> f8;
};

// Starts the product in this thread's stream. False where the library has no kernel with such a bias or epilogue, or
// for such operands of 8 bits: nothing has been done then.
bool matmul(Gpu& gpu, const Matmul& p);

std::string matmul_library();  // its name and version

}  // namespace loom::cuda
