// SPDX-License-Identifier: Apache-2.0
// A product against loops in double.
#pragma once

#include "kernel_test.h"

namespace kernel_test {

// alpha * a @ b + beta * c + bias in double; c is read before the kernel runs.
inline std::vector<double> reference(const Gemm& args) {
  const int r = args.c.rank();
  const int64_t m = args.c.shape[r - 2], n = args.c.shape[r - 1], k = args.a.shape[r - 1];
  std::vector<double> out(static_cast<size_t>(args.c.numel()));
  for (int64_t i = 0; i < args.c.numel(); ++i) {
    const int64_t batch = i / (m * n), row = i / n % m, column = i % n;
    double sum = 0;
    for (int64_t p = 0; p < k; ++p)
      sum += get(args.a, (batch * m + row) * k + p) * get(args.b, (batch * k + p) * n + column);
    out[static_cast<size_t>(i)] = args.alpha * sum + (args.beta != 0 ? args.beta * get(args.c, i) : 0) +
                                  (args.bias.data != nullptr ? get(args.bias, args.bias.rank() > 1 ? i : column) : 0);
  }
  return out;
}

inline void check_gemm(const Gemm& args) {
  const std::vector<double> expected = reference(args);
  cpu_accelerator().gemm(args);
  const auto k = static_cast<double>(args.a.shape.back());
  const double sum_epsilon = epsilon(args.c.dtype == DType::f64 ? DType::f64 : DType::f32);
  // Each of k roundings is of a sum that grows as the root of k.
  check_close(args.c, expected, epsilon(args.c.dtype) * (4 + 4 * std::sqrt(k)) + sum_epsilon * 0.4 * k);
}

}  // namespace kernel_test
