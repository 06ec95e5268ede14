// SPDX-License-Identifier: Apache-2.0
// Products of a few rows, as many as registers hold, with factors packed once for many such: attention's scores and
// what becomes of them are worked on by blocks of so many rows, so that little is computed that causality hides.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <loom/accelerators/cpu/gemm.h>
#include <loom/accelerators/cpu/gemm_pack.h>
#include <loom/accelerators/cpu/micro_kernel.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/cpu/transpose.h>

namespace loom::cpu {

template <class T>
constexpr int64_t whole_vectors(int64_t n) {
  return (n + lanes<T> - 1) / lanes<T> * lanes<T>;
}

// A factor on the right, in panels of as many columns as a tile has, or read where it lies.
template <class T>
class RightFactor {
 public:
  static constexpr int64_t width = int64_t{tile_vectors} * lanes<T>;
  // With room for so many rows and columns.
  RightFactor(int64_t rows, int64_t columns) : memory_(rows * ((columns + width - 1) / width) * width) {}
  // Packs; past the last column zeros follow up to a whole vector.
  void take(const MatrixRef<const T>& m) {
    data_ = memory_.data();
    step_ = width;
    stride_ = m.rows * width;
    if (m.row_stride == 1 && m.column_stride != 1)
      turn(m);
    else
      pack(memory_.data(), width, stride_, Lines<T>{m.data, m.column_stride, m.row_stride}, m.columns, m.rows);
  }
  // The same for so many rows of products: too few do not pay for packing.
  void take(const MatrixRef<const T>& m, int64_t rows) {
    if (rows > tile_rows || m.column_stride != 1 || m.columns % lanes<T> != 0) return take(m);
    data_ = m.data;
    step_ = m.row_stride;
    stride_ = width;
  }
  // From `row` on, columns from `column` on, a multiple of the width.
  const T* at(int64_t row, int64_t column) const { return data_ + column / width * stride_ + row * step_; }
  int64_t step() const { return step_; }

 private:
  // Rows of a matrix that becomes this one's columns are dense.
  void turn(const MatrixRef<const T>& m) {
    constexpr auto item = static_cast<int64_t>(sizeof(T));
    for (int64_t j = 0; j < m.columns; j += width) {
      const int64_t some = std::min(width, m.columns - j), vectors = whole_vectors<T>(some);
      T* const panel = memory_.data() + j / width * stride_;
      for (int64_t p = 0; p < m.rows && some < vectors; ++p)
        std::fill_n(panel + p * width + some, vectors - some, T(0));
      transpose_block<Bits>(reinterpret_cast<char*>(panel), width * item,
                            reinterpret_cast<const char*>(m.data + j * m.column_stride), m.column_stride * item, some,
                            m.rows);
    }
  }

  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  Scratch<T> memory_;
  const T* data_ = nullptr;
  int64_t step_ = width, stride_ = 0;  // from a row to the next, from a panel to the next
};

// How c gets a sum: c[i][j] = alpha[i * each] * sum + from[i * each] * c[i][j]; from null: c is not read.
template <class T>
struct Joined {
  const T *alpha, *from;
  int64_t each = 0;
};

// Element (i, p) of a factor on the left lies at data[i * row + p * step].
template <class T>
struct LeftFactor {
  const T* data;
  int64_t row, step;
};

namespace attention_detail {

template <class T>
struct Strip {
  int64_t k;
  LeftFactor<T> a;
  const T* b;
  int64_t b_step;
  T* c;
  int64_t c_row, columns;
  Joined<T> joined;
};

template <bool whole, bool reads, int rows, int vectors, class T>
[[gnu::always_inline]] inline void finish(const Strip<T>& s, const Vec<T> (&sum)[rows][vectors]) {
  constexpr int n = lanes<T>;
  const FirstLanes<T> rest(s.columns - (vectors - 1) * n);
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i) {
    const Vec<T> alpha = broadcast(s.joined.alpha[i * s.joined.each]);
    Vec<T> from{};
    if constexpr (reads) from = broadcast(s.joined.from[i * s.joined.each]);
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) {
      T* const c = s.c + i * s.c_row + j * n;
      const bool all = whole || j < vectors - 1;
      Vec<T> v = alpha * sum[i][j];
      if constexpr (reads) v = fma(from, all ? load(c) : load(c, rest), v);
      if (all)
        store(c, v);
      else
        store(c, v, rest);
    }
  }
}

template <int rows, int vectors, class T>
void strip(const Strip<T>& s) {
  Vec<T> sum[rows][vectors];
#pragma GCC unroll 32
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) sum[i][j] = Vec<T>{};
  multiply_tile<rows, vectors, T>(s.k, s.a.data, s.a.step, s.a.row, s.b, s.b_step, sum);
  const bool whole = vector_bytes < 64 && s.columns == vectors * lanes<T>;  // masks cost vectors of 512 bits nothing
  if (s.joined.from != nullptr)
    whole ? finish<true, true, rows, vectors, T>(s, sum) : finish<false, true, rows, vectors, T>(s, sum);
  else
    whole ? finish<true, false, rows, vectors, T>(s, sum) : finish<false, false, rows, vectors, T>(s, sum);
}

template <class T>
using StripKernel = void (*)(const Strip<T>&);
template <class T, int vectors, int... row>
constexpr std::array<StripKernel<T>, tile_rows> kernels_of(std::integer_sequence<int, row...>) {
  return {strip<row + 1, vectors, T>...};
}
template <class T, int... vector>
StripKernel<T> kernel(int64_t rows, int64_t vectors, std::integer_sequence<int, vector...>) {
  static constexpr std::array<StripKernel<T>, tile_rows> kernels[] = {
      kernels_of<T, vector + 1>(std::make_integer_sequence<int, tile_rows>())...};
  return kernels[vectors - 1][static_cast<size_t>(rows - 1)];
}

}  // namespace attention_detail

// `columns` columns of c, 1 <= rows <= tile_rows of them, of k products each; b from its row `first` on.
template <class T>
void multiply_rows(T* c, int64_t c_row, int64_t rows, int64_t columns, const LeftFactor<T>& a, int64_t k,
                   const RightFactor<T>& b, int64_t first, const Joined<T>& joined) {
  constexpr int64_t width = RightFactor<T>::width;
  for (int64_t j = 0; j < columns; j += width) {
    const int64_t some = std::min(width, columns - j);
    attention_detail::kernel<T>(
        rows, (some + lanes<T> - 1) / lanes<T>,
        std::make_integer_sequence<int, tile_vectors>())({k, a, b.at(first, j), b.step(), c + j, c_row, some, joined});
  }
}

// Calls f(first, count) for blocks of at most tile_rows rows that are about equally high.
template <class F>
void for_each_block(int64_t rows, const F& f) {
  const int64_t blocks = (rows + tile_rows - 1) / tile_rows, height = (rows + blocks - 1) / blocks;
  for (int64_t first = 0; first < rows; first += height) f(first, std::min(height, rows - first));
}

}  // namespace loom::cpu
