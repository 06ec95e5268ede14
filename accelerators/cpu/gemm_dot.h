// SPDX-License-Identifier: Apache-2.0
// Products of few rows or columns whose operands both lie along k: elements of c are dot products, a square of them at
// a time, so that nothing is packed and no lane is wasted on columns that there are not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_vector.h>
#include <loom/accelerators/cpu/micro_kernel.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/cpu/sums.h>

namespace loom::cpu {

namespace dot_detail {

// Elements of c that are made together, as many as a vector has lanes: rows of a by columns of b.
template <class T, int columns>
inline constexpr int rows_of = lanes<T> / columns;

// One operand's lines along k; those that there are not repeat the last one.
template <class S, int count>
struct DotLines {
  const S* at[count];
  DotLines(const S* first, int64_t stride, int64_t there) {
    for (int64_t i = 0; i < count; ++i) at[i] = first + std::min(i, there - 1) * stride;
  }
};

// A vector of E from the first n elements of a line; n: all that it holds, or fewer.
template <class E, class S>
[[gnu::always_inline]] inline Vec<SumOf<E>> dot_step(const S* from, int64_t n) {
  if constexpr (is_pair<E>)
    return load_first_pairs(from, n);
  else
    return n == lanes<E> ? load(from) : load_first(from, n);
}

// Of elements [p, k) of the lines; sum: row by row.
template <class E, class S, int rows, int columns>
[[gnu::always_inline]] inline void dot_stretch(Vec<SumOf<E>> (&sum)[rows * columns], const DotLines<S, rows>& a,
                                               const DotLines<S, columns>& b, int64_t p, int64_t k) {
  using T = SumOf<E>;
  constexpr int64_t n = sizeof(Vec<T>) / sizeof(S);
#pragma GCC unroll 16
  for (auto& s : sum) s = Vec<T>{};
  const auto step = [&](int64_t p, int64_t count) __attribute__((always_inline)) {
    Vec<T> y[columns];
#pragma GCC unroll 4
    for (int j = 0; j < columns; ++j) y[j] = dot_step<E>(b.at[j] + p, count);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec<T> x = dot_step<E>(a.at[i] + p, count);
#pragma GCC unroll 4
      for (int j = 0; j < columns; ++j) sum[i * columns + j] = add_product<E>(x, y[j], sum[i * columns + j]);
    }
  };
  for (; p + n <= k; p += n) step(p, n);
  if (p < k) step(p, k - p);
}

// The dot products in the lanes of one vector, row by row.
template <class E, class S, int rows, int columns>
[[gnu::always_inline]] inline Vec<SumOf<E>> dot_square(const DotLines<S, rows>& a, const DotLines<S, columns>& b,
                                                       int64_t k) {
  using T = SumOf<E>;
  constexpr int64_t stretch = most_added * sizeof(Vec<T>) / sizeof(S);
  Vec<T> sum[rows * columns];
  dot_stretch<E>(sum, a, b, 0, std::min(k, stretch));
  for (int64_t p = stretch; p < k; p += stretch) [[unlikely]] {
    Vec<T> more[rows * columns];
    dot_stretch<E>(more, a, b, p, std::min(k, p + stretch));
    for (int i = 0; i < rows * columns; ++i) sum[i] += more[i];
  }
  across_each(sum, [](Vec<T> x, Vec<T> y) { return x + y; });
  return sum[0];
}

// Sums, row by row, become elements of c from (i, j) on; `there` rows of them.
template <int columns, class S, class T, class C>
[[gnu::always_inline]] inline void write_square(const ProductArgs<S, T, C>& p, Vec<T> sums, int64_t i, int64_t j,
                                                int64_t there) {
  alignas(64) C made[lanes<T>];
  sums *= broadcast(p.alpha);
  C* const to = p.c.data + i * p.c.row_stride + j * p.c.column_stride;
  if (p.beta == 0 && p.bias == nullptr) {
    if constexpr (std::is_same_v<C, T>)
      store(made, sums);
    else
      store_first(made, sums, lanes<T>);
  } else {
    alignas(64) T values[lanes<T>];
    store(values, sums);
    for (int64_t r = 0; r < there; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        T& value = values[r * columns + c];
        if (p.beta != 0) value += p.beta * static_cast<T>(to[r * p.c.row_stride + c * p.c.column_stride]);
        if (p.bias != nullptr) value += p.bias[(i + r) * p.bias_row + (j + c) * p.bias_column];
      }
    if constexpr (std::is_same_v<C, T>)
      store(made, load(values));
    else
      store_first(made, load(values), lanes<T>);
  }
  for (int64_t r = 0; r < there; ++r)
#pragma GCC unroll 4
    for (int64_t c = 0; c < columns; ++c) to[r * p.c.row_stride + c * p.c.column_stride] = made[r * columns + c];
}

// `columns` columns of c from j on, rows [begin, end).
template <class E, int columns, class S, class T, class C>
void dot_columns(const ProductArgs<S, T, C>& p, int64_t j, int64_t begin, int64_t end) {
  constexpr int rows = rows_of<T, columns>;
  const DotLines<S, columns> b(p.b.data + j * p.b.column_stride, p.b.column_stride, columns);
  for (int64_t i = begin; i < end; i += rows) {
    const int64_t there = std::min<int64_t>(rows, end - i);
    const DotLines<S, rows> a(p.a.data + i * p.a.row_stride, p.a.row_stride, there);
    write_square<columns>(p, dot_square<E>(a, b, p.a.columns), i, j, there);
  }
}

}  // namespace dot_detail

template <class E, class S, class T, class C>
bool is_dot_product(const ProductArgs<S, T, C>& p) {
  constexpr int64_t few = 24, n = sizeof(Vec<T>) / sizeof(S);
  // Vectors along k that pay for putting their lanes together: fewer where tiles would leave most lanes of c's idle.
  const int64_t deep = p.c.columns <= lanes<T> * (is_pair<E> ? 3 : 2) / 4 ? 4 : 8;
  return p.group_columns == 0 && p.a.column_stride == 1 && p.b.row_stride == 1 &&
         std::min(p.c.rows, p.c.columns) <= few && p.a.columns >= deep * n;
}

// Rows [begin, end) of the product.
template <class E, class S, class T, class C>
void dot_products(const ProductArgs<S, T, C>& p, int64_t begin, int64_t end) {
  using namespace dot_detail;
  constexpr int64_t most = std::min(4, lanes<T>);
  const int64_t n = p.c.columns;
  for (int64_t i = begin; i < end; i += lanes<T>) {  // a few rows stay near until all columns have met them
    const int64_t to = std::min<int64_t>(end, i + lanes<T>);
    int64_t j = 0;
    for (; j + most <= n; j += most) dot_columns<E, most>(p, j, i, to);
    if (j + 2 <= n) {
      dot_columns<E, 2>(p, j, i, to);
      j += 2;
    }
    if (j < n) dot_columns<E, 1>(p, j, i, to);
  }
}

}  // namespace loom::cpu
