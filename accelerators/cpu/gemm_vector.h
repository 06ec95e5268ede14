// SPDX-License-Identifier: Apache-2.0
// A vector times a matrix: each element of the matrix is used once, so nothing is packed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_pack.h>
#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

inline constexpr int64_t most_added = 1024;  // steps of sums; more would cost digits

namespace vector_detail {

template <class T>
[[gnu::always_inline]] inline T total(Vec<T> v) {
  T sum[lanes<T>];
  store(sum, v);
  for (int half = lanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) sum[i] += sum[i + half];
  return sum[0];
}

// sums[l] = x . line l for `count` lines that are contiguous along k.
template <int count, class T, class S>
void dots(T* sums, const T* x, const Lines<S>& from, int64_t k) {
  constexpr int n = lanes<T>;
  Vec<T> even[count], odd[count];  // two chains for each line
#pragma GCC unroll 8
  for (int l = 0; l < count; ++l) even[l] = odd[l] = Vec<T>{};
  int64_t p = 0;
  for (; p + 2 * n <= k; p += 2 * n) {
    const Vec<T> x0 = load(x + p), x1 = load(x + p + n);
#pragma GCC unroll 8
    for (int l = 0; l < count; ++l) {
      const S* const line = from.data + l * from.line_stride + p;
      even[l] = fma(x0, load(line), even[l]);
      odd[l] = fma(x1, load(line + n), odd[l]);
    }
  }
  for (; p < k; p += n) {
    const int64_t rest = std::min<int64_t>(n, k - p);
    const Vec<T> some = load_first(x + p, rest);
#pragma GCC unroll 8
    for (int l = 0; l < count; ++l)
      even[l] = fma(some, load_first(from.data + l * from.line_stride + p, rest), even[l]);
  }
#pragma GCC unroll 8
  for (int l = 0; l < count; ++l) sums[l] = total<T>(even[l] + odd[l]);
}

// The same for lines that are neighbours in memory: `vectors` times lanes<T> of them, or, if that is 1, the first
// `count` of a vector.
template <int vectors, class T, class S>
void combine(T* sums, const T* x, const Lines<S>& from, int64_t k, int64_t count) {
  constexpr int n = lanes<T>;
  Vec<T> sum[vectors];
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) sum[j] = Vec<T>{};
  const S* at = from.data;
  for (int64_t p = 0; p < k; ++p, at += from.step) {
    const Vec<T> element = broadcast(x[p]);
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j)
      sum[j] = fma(element, vectors == 1 ? load_first(at, count) : load(at + j * n), sum[j]);
  }
#pragma GCC unroll 8
  for (int j = 0; j < vectors; ++j) store(sums + j * n, sum[j]);
}

}  // namespace vector_detail

// Lines that vector_times handles at a time.
template <class T>
inline constexpr int64_t vector_lines = 8 * lanes<T>;

namespace vector_detail {

// vector_times() where k is not more than may be added one to the other.
template <class T, class S>
void stretch_times(T* sums, const T* x, const Lines<S>& from, int64_t lines, int64_t k) {
  constexpr int64_t n = lanes<T>;
  const auto part = [&](int64_t l) { return Lines<S>{from.data + l * from.line_stride, from.line_stride, from.step}; };
  int64_t l = 0;
  if (from.step == 1) {
    for (; l + 4 <= lines; l += 4) dots<4>(sums + l, x, part(l), k);
    for (; l < lines; ++l) dots<1>(sums + l, x, part(l), k);
  } else {
    if (lines == 8 * n) return combine<8>(sums, x, from, k, n);
    for (; l < lines; l += n) combine<1>(sums + l, x, part(l), k, std::min(n, lines - l));
  }
}

}  // namespace vector_detail

// sums[l] = the sum over p < k of x[p] * element p of line l, for `lines` lines of which one stride is 1; they are at
// most vector_lines, and sums has room for as many.
template <class T, class S>
void vector_times(T* sums, const T* x, const Lines<S>& from, int64_t lines, int64_t k) {
  using namespace vector_detail;
  const int64_t stretch = most_added * (from.step == 1 ? 2 * lanes<T> : 1);
  stretch_times(sums, x, from, lines, std::min(k, stretch));
  for (int64_t p = stretch; p < k; p += stretch) {
    alignas(64) T more[vector_lines<T>];
    const Lines<S> rest{from.data + p * from.step, from.line_stride, from.step};
    stretch_times(more, x + p, rest, lines, std::min(stretch, k - p));
    for (int64_t l = 0; l < lines; ++l) sums[l] += more[l];
  }
}

// Few rows of c, where b can be read as it lies: no tile would be worth its packing.
template <class S, class T, class C>
bool is_vector_product(const ProductArgs<S, T, C>& p) {
  return p.c.rows == 1 ? p.b.row_stride == 1 || p.b.column_stride == 1 : p.c.rows <= 3 && p.b.row_stride == 1;
}

template <class S, class T, class C>
void vector_products(const ProductArgs<S, T, C>& p, int64_t begin, int64_t end) {
  const int64_t k = p.a.columns;
  Workspace<T> memory;
  T* const x = memory.get(k);
  for (int64_t i = 0; i < p.c.rows; ++i) {
    for (int64_t q = 0; q < k; ++q) x[q] = static_cast<T>(p.a.data[i * p.a.row_stride + q * p.a.column_stride]);
    for (int64_t j = begin; j < end; j += vector_lines<T>) {
      alignas(64) T sums[vector_lines<T>];
      const int64_t lines = std::min(vector_lines<T>, end - j);
      vector_times<T, S>(sums, x, {p.b.data + j * p.b.column_stride, p.b.column_stride, p.b.row_stride}, lines, k);
      for (int64_t l = 0; l < lines; ++l) {
        C& c = p.c.data[i * p.c.row_stride + (j + l) * p.c.column_stride];
        T value = p.alpha * sums[l];
        if (p.beta != 0) value += p.beta * static_cast<T>(c);
        if (p.bias != nullptr) value += p.bias[i * p.bias_row + (j + l) * p.bias_column];
        c = static_cast<C>(value);
      }
    }
  }
}

}  // namespace loom::cpu
