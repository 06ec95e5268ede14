// What the forward and the backward of attention share: operands as strided matrices, one per leading index, and which
// scores count. Nothing of the size of all scores is ever kept.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <loom/accelerators/cpu/gemm.h>
#include <loom/accelerators/cpu/scratch.h>

namespace loom::cpu {

// How many matrices of q in a row share one of k and v.
inline int64_t sharers(const Attention& a) {
  const int64_t keys = batch_dims(a.k.shape).numel();
  return keys > 0 ? batch_dims(a.q.shape).numel() / keys : 1;
}

// Queries and keys that are worked on together: what is kept of them stays in the second-level cache.
inline constexpr int64_t query_block = 128;

// The matrices [rows, columns] of an input, by leading index; read in place where T is its dtype and its columns are
// adjacent.
template <class T>
class Matrices {
 public:
  explicit Matrices(const View& x) : shape_(x.shape), strides_(x.strides), data_(x.as<T>()) {
    const int last = x.rank() - 1;
    if (x.dtype == dtype_of<T>() && (x.strides[last] == 1 || x.shape[last] == 1)) return;
    copy_ = Scratch<T>(x.numel());
    data_ = copy_.data();
    strides_ = row_major_strides(x.shape);
    self().copy(view_over(data_, dtype_of<T>(), x.shape), x);
  }
  // Rows [begin, begin + count) of matrix `index`.
  MatrixRef<const T> rows(int64_t index, int64_t begin, int64_t count) const {
    const int rank = shape_.size();
    return {data_ + offset(index) + begin * strides_[rank - 2], count, shape_[rank - 1], strides_[rank - 2], 1};
  }
  int64_t extent(int from_the_end) const { return shape_[shape_.size() - from_the_end]; }

 private:
  int64_t offset(int64_t index) const {
    int64_t at = 0;
    for (int i = shape_.size() - 3; i >= 0; --i) {
      at += index % shape_[i] * strides_[i];
      index /= shape_[i];
    }
    return at;
  }
  Dims shape_, strides_;
  T* data_;
  Scratch<T> copy_;
};

// The same for an output: after all matrices are written, store().
template <class T>
class RowOutput {
 public:
  explicit RowOutput(const View& y) : y_(y), strides_(y.strides), data_(y.as<T>()) {
    if (y.dtype == dtype_of<T>() && y.strides.back() == 1) return;
    copy_ = Scratch<T>(y.numel());
    data_ = copy_.data();
    strides_ = row_major_strides(y.shape);
  }
  // Rows of matrix `index` from `begin` on.
  MatrixRef<T> rows(int64_t index, int64_t begin) const {
    const int rank = y_.rank();
    int64_t at = begin * strides_[rank - 2];
    for (int i = rank - 3; i >= 0; --i) {
      at += index % y_.shape[i] * strides_[i];
      index /= y_.shape[i];
    }
    return {data_ + at, y_.shape[rank - 2] - begin, y_.shape[rank - 1], strides_[rank - 2], 1};
  }
  void store() const {
    if (copy_.data() != nullptr) self().copy(y_, view_over(data_, dtype_of<T>(), y_.shape));
  }

 private:
  const View& y_;
  Dims strides_;
  T* data_;
  Scratch<T> copy_;
};

template <class T>
MatrixRef<const T> transposed(const MatrixRef<const T>& m) {
  return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
}

// What is added to scores, or which of them count.
template <class T>
class AttentionMask {
 public:
  AttentionMask(const View& mask, bool causal) : causal_(causal), boolean_(mask.dtype == DType::boolean), mask_(mask) {}

  // Keys that rows [begin, begin + count) can attend to at all: the first so many of `keys`.
  int64_t reach(int64_t begin, int64_t count, int64_t keys) const {
    return causal_ ? std::min(keys, begin + count) : keys;
  }
  // Rows that may attend to nothing get weights of 0; where numbers are added they get NaN, as softmax gives.
  bool blank_rows_are_zero() const { return boolean_ || mask_.data == nullptr; }

  // How many of the n keys from `key` on the query may attend to, as far as causality goes.
  int64_t counted(int64_t query, int64_t key, int64_t n) const {
    return causal_ ? std::clamp<int64_t>(query + 1 - key, 0, n) : n;
  }
  // The first of `count` queries from `query` on that attend to the key, or `count`.
  int64_t first_query(int64_t key, int64_t query, int64_t count) const {
    return causal_ ? std::clamp<int64_t>(key - query, 0, count) : 0;
  }

  // Applies the mask that was given to scores, rows `row_step` apart, of queries from `query` on and n keys from `key`
  // on, of matrix `index`.
  void apply(T* scores, int64_t row_step, int64_t index, int64_t query, int64_t queries, int64_t key, int64_t n) const {
    if (mask_.data == nullptr) return;
    const int rank = mask_.rank();
    int64_t at = 0;
    for (int i = rank - 3; i >= 0; --i) {
      at += index % mask_.shape[i] * mask_.strides[i];
      index /= mask_.shape[i];
    }
    const int64_t down = mask_.strides[rank - 2], right = mask_.strides[rank - 1];
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t first = at + (query + i) * down + key * right;
      if (right == 1)
        apply_row(scores + i * row_step, first, n, std::integral_constant<int64_t, 1>());
      else
        apply_row(scores + i * row_step, first, n, right);
    }
  }

 private:
  template <class Step>
  void apply_row(T* __restrict row, int64_t first, int64_t n, Step right) const {
    constexpr T hidden = -std::numeric_limits<T>::infinity();
    if (boolean_) {
      const auto* __restrict const allowed = mask_.as<const uint8_t>() + first;
      for (int64_t j = 0; j < n; ++j) row[j] = allowed[j * right] != 0 ? row[j] : hidden;
    } else {
      const T* __restrict const added = mask_.as<const T>() + first;
      for (int64_t j = 0; j < n; ++j) row[j] += added[j * right];
    }
  }

  bool causal_, boolean_;
  View mask_;
};

}  // namespace loom::cpu
