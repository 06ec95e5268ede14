// SPDX-License-Identifier: Apache-2.0
// What every way to multiply two matrices is given, and where it packs them.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/gemm.h>
#include <loom/accelerators/cpu/scratch.h>

namespace loom::cpu {

// c = alpha * a @ b + beta * c + bias. Any strides; S is a's and b's dtype, C is c's, T what is summed in.
template <class S, class T, class C>
struct ProductArgs {
  MatrixRef<const S> a, b;
  MatrixRef<C> c;
  T alpha = 1, beta = 0;  // beta 0: c is not read
  const T* bias = nullptr;
  int64_t bias_row = 0, bias_column = 1;
  // So many columns of b lie together, and as many of the next ones group_stride further; 0: b's strides say it all.
  int64_t group_columns = 0, group_stride = 0;
};

// c' = b' a'
template <class S, class T, class C>
ProductArgs<S, T, C> transposed(const ProductArgs<S, T, C>& p) {
  const auto swapped = [](const auto& m) {
    return std::remove_cvref_t<decltype(m)>{m.data, m.columns, m.rows, m.column_stride, m.row_stride};
  };
  return {swapped(p.b), swapped(p.a), swapped(p.c), p.alpha, p.beta, p.bias, p.bias_column, p.bias_row};
}

// The product; c must not be empty. bf16 is multiplied in pairs, which has_pair_products() must allow.
void product(const ProductArgs<float, float, float>& p);
void product(const ProductArgs<double, double, double>& p);
void product(const ProductArgs<BFloat16, float, BFloat16>& p);
void product(const ProductArgs<BFloat16, float, float>& p);

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t second_cache() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const int64_t found = sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
  static const int64_t found = 0;
#endif
  return std::max<int64_t>(found, 256 << 10);
}

// Memory for packed operands: on the stack where little is needed.
template <class E>
class Workspace {
 public:
  E* get(int64_t count) {
    if (count * static_cast<int64_t>(sizeof(E)) <= static_cast<int64_t>(sizeof(near_)))
      return reinterpret_cast<E*>(near_);
    far_ = Scratch<E>(count);
    return far_.data();
  }

 private:
  alignas(64) std::byte near_[12 * 1024];
  Scratch<E> far_;
};

}  // namespace loom::cpu
