// SPDX-License-Identifier: Apache-2.0
// Products of few rows or columns whose operands both lie along k: elements of c are dot products, a square of them at
// a time, so that nothing is packed and no lane is wasted on columns that there are not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_vector.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/cpu/sums.h>

namespace loom::cpu {

namespace dot_detail {

// Elements of c that are made together, as many as a vector has lanes: rows of a by columns of b.
template <class T, int columns>
inline constexpr int rows_of = lanes<T> / columns;

// One operand's lines along k; those that there are not repeat the last one.
template <class T, int count>
struct DotLines {
  const T* at[count];
  DotLines(const T* first, int64_t stride, int64_t there) {
    for (int64_t i = 0; i < count; ++i) at[i] = first + std::min(i, there - 1) * stride;
  }
};

// The dot products in the lanes of one vector, row by row.
template <class T, int rows, int columns>
[[gnu::always_inline]] inline Vec<T> dot_square(const DotLines<T, rows>& a, const DotLines<T, columns>& b, int64_t k) {
  constexpr int n = lanes<T>;
  Vec<T> sum[rows * columns];
#pragma GCC unroll 16
  for (auto& s : sum) s = Vec<T>{};
  const auto step = [&](const auto& read) __attribute__((always_inline)) {
    Vec<T> y[columns];
#pragma GCC unroll 4
    for (int j = 0; j < columns; ++j) y[j] = read(b.at[j]);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec<T> x = read(a.at[i]);
#pragma GCC unroll 4
      for (int j = 0; j < columns; ++j) sum[i * columns + j] = fma(x, y[j], sum[i * columns + j]);
    }
  };
  int64_t p = 0;
  for (; p + n <= k; p += n) step([&](const T* line) __attribute__((always_inline)) { return load(line + p); });
  if (p < k) step([&](const T* line) __attribute__((always_inline)) { return load_first(line + p, k - p); });
  across_each(sum, [](Vec<T> x, Vec<T> y) { return x + y; });
  return sum[0];
}

// `columns` columns of c from j on, rows [begin, end).
template <int columns, class T>
void dot_columns(const ProductArgs<T, T, T>& p, int64_t j, int64_t begin, int64_t end) {
  constexpr int rows = rows_of<T, columns>;
  const DotLines<T, columns> b(p.b.data + j * p.b.column_stride, p.b.column_stride, columns);
  for (int64_t i = begin; i < end; i += rows) {
    const int64_t there = std::min<int64_t>(rows, end - i);
    alignas(64) T sums[lanes<T>];
    store(sums, dot_square<T, rows, columns>({p.a.data + i * p.a.row_stride, p.a.row_stride, there}, b, p.a.columns));
    for (int64_t r = 0; r < there; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        T& to = p.c.data[(i + r) * p.c.row_stride + (j + c) * p.c.column_stride];
        T value = p.alpha * sums[r * columns + c];
        if (p.beta != 0) value += p.beta * to;
        if (p.bias != nullptr) value += p.bias[(i + r) * p.bias_row + (j + c) * p.bias_column];
        to = value;
      }
  }
}

}  // namespace dot_detail

template <class S, class T, class C>
bool is_dot_product(const ProductArgs<S, T, C>& p) {
  constexpr int64_t few = 24, deep = 8;  // deep: vectors along k that pay for putting their lanes together
  return std::is_same_v<S, T> && std::is_same_v<C, T> && p.group_columns == 0 && p.a.column_stride == 1 &&
         p.b.row_stride == 1 && std::min(p.c.rows, p.c.columns) <= few && p.a.columns >= deep * lanes<T>;
}

// Rows [begin, end) of the product.
template <class T>
void dot_products(const ProductArgs<T, T, T>& p, int64_t begin, int64_t end) {
  using namespace dot_detail;
  constexpr int64_t most = std::min(4, lanes<T>);
  const int64_t n = p.c.columns;
  for (int64_t i = begin; i < end; i += lanes<T>) {  // a few rows stay near until all columns have met them
    const int64_t to = std::min<int64_t>(end, i + lanes<T>);
    int64_t j = 0;
    for (; j + most <= n; j += most) dot_columns<most>(p, j, i, to);
    if (j + 2 <= n) {
      dot_columns<2>(p, j, i, to);
      j += 2;
    }
    if (j < n) dot_columns<1>(p, j, i, to);
  }
}

}  // namespace loom::cpu
