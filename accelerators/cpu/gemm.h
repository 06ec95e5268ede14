// The one matrix product that CPU kernels share. An element of c is summed in an order that only the shapes, the
// strides and the instruction set decide: it has the same bits whatever the number of threads and whoever computes it.
#pragma once

#include <cstdint>

namespace loom::cpu {

// Element (i, j) lies at data[i * row_stride + j * column_stride].
template <class T>
struct MatrixRef {
  T* data;
  int64_t rows, columns, row_stride, column_stride;
};

// A product with fewer floating-point operations than this stays in one thread.
inline constexpr int64_t parallel_flops = 400'000;

}  // namespace loom::cpu
