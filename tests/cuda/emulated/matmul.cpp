// SPDX-License-Identifier: Apache-2.0
// In place of cuBLASLt: plain loops, on arguments as strict as the library's.
#include <loom/accelerators/cuda/matmul.h>

#include <vector>

#include <queues.h>

namespace loom::cuda {

namespace {

void check_leading(const MatrixLayout& layout, int64_t rows, int64_t columns) {
  check(layout.leading >= (layout.transposed ? rows : columns), "matmul: leading dimension ", layout.leading);
}

template <class S>
std::vector<double> widened(const void* data, const MatrixLayout& layout, int64_t rows, int64_t columns) {
  const auto* const x = static_cast<const S*>(data);
  std::vector<double> out(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      out[static_cast<size_t>(i * columns + j)] = static_cast<double>(
          static_cast<compute_type<S>>(layout.transposed ? x[j * layout.leading + i] : x[i * layout.leading + j]));
  return out;
}

template <class S, class C>
void multiply(const Matmul& p, const void* a_data, const void* b_data, C* c) {
  using T = compute_type<S>;
  const auto a = widened<S>(a_data, p.a_layout, p.m, p.k), b = widened<S>(b_data, p.b_layout, p.k, p.n);
  const auto* const bias = static_cast<const C*>(p.bias);
  std::vector<T> row(static_cast<size_t>(p.n));
  for (int64_t i = 0; i < p.m; ++i) {
    std::fill(row.begin(), row.end(), T(0));
    for (int64_t l = 0; l < p.k; ++l) {
      const T factor = static_cast<T>(a[static_cast<size_t>(i * p.k + l)]);
      const double* const from = b.data() + l * p.n;
      for (int64_t j = 0; j < p.n; ++j) row[static_cast<size_t>(j)] += factor * static_cast<T>(from[j]);
    }
    C* const to = c + i * p.c_layout.leading;
    for (int64_t j = 0; j < p.n; ++j) {
      T value = static_cast<T>(p.alpha) * row[static_cast<size_t>(j)];
      if (p.beta != 0) value += static_cast<T>(p.beta) * static_cast<T>(to[j]);
      if (bias != nullptr) value += static_cast<T>(bias[j]);
      to[j] = static_cast<C>(value);
    }
  }
}

template <class S, class C>
void all(const Matmul& p) {
  for (int64_t i = 0; i < p.batches; ++i)
    multiply<S, C>(p, static_cast<const S*>(p.a) + i * p.a_layout.step,
                   static_cast<const S*>(p.b) + i * p.b_layout.step, static_cast<C*>(p.c) + i * p.c_layout.step);
}

}  // namespace

std::string matmul_library() { return "products by the host"; }

bool matmul(Gpu& gpu, const Matmul& p) {
  check(p.m > 0 && p.n > 0 && p.k > 0 && p.batches > 0 && p.batches <= 65535 && !p.c_layout.transposed,
        "matmul: arguments");
  check_leading(p.a_layout, p.m, p.k);
  check_leading(p.b_layout, p.k, p.n);
  if (p.bias != nullptr && p.n % 3 == 0) return false;  // some products have no kernel with a bias
  emulated::enqueue(gpu.stream(), [p] {
    with_floating("matmul", p.in, [&]<class S> {
      if (p.out == p.in) return all<S, S>(p);
      if constexpr (sizeof(S) == 2) all<S, float>(p);
    });
  });
  return true;
}

}  // namespace loom::cuda
