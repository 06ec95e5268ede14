// SPDX-License-Identifier: Apache-2.0
// The reductions of floating dtypes in vectors: along a row, along many, and across rows side by side. Elements of a
// piece are combined in the compute type T, side by side to hide the latency of addition, and the pieces in double.
#pragma once

#include <algorithm>
#include <cstdint>

#include <loom/accelerators/cpu/reduce.h>
#include <loom/accelerators/cpu/sums.h>
#include <loom/accelerators/dtype.h>

namespace loom::cpu {

// The first n elements of x, lifted, in the first lanes, and neutral ones in the rest.
template <Reduce op, class S>
[[gnu::always_inline]] inline auto lifted_first(const S* x, int64_t n) {
  constexpr auto none = neutral<op, compute_type<S>>();
  if constexpr (none == 0)
    return lift<op>(load_first(x, n));
  else
    return first_or(lift<op>(load_first(x, n)), broadcast(none), n);
}

// Elements of one row, or of several, combined in T.
template <Reduce op, class S>
class Piece {
 public:
  using T = compute_type<S>;
  static constexpr int64_t width = lanes<T>, ways = vector_registers >= 32 ? 8 : 4;
  static constexpr int64_t length = 8 * ways * width;  // elements to be combined before the total takes over
  static constexpr auto join = [](auto a, auto b) { return combine<op>(a, b); };

  [[gnu::always_inline]] Piece() {
#pragma GCC unroll 8
    for (auto& sum : sum_) sum = broadcast(none);
  }
  [[gnu::always_inline]] void add(const S* x, int64_t n) {
    int64_t i = 0;
#pragma GCC unroll 1  // prefetchers know loads by where they stand in the code
    for (; i + ways * width <= n; i += ways * width) add_vectors<0, ways>(x + i);
    add_rest<ways / 2>(x, i, n);
    if (i < n) sum_[ways - 1] = join(sum_[ways - 1], lifted_first<op>(x + i, n - i));
  }
  [[gnu::always_inline]] Vec<double> total() const { return widened(tree<0, ways>(), join); }

 private:
  static constexpr T none = neutral<op, T>();
  template <int64_t first, int64_t count>
  [[gnu::always_inline]] void add_vectors(const S* x) {
#pragma GCC unroll 8
    for (int64_t w = 0; w < count; ++w) sum_[first + w] = join(sum_[first + w], lift<op>(load(x + w * width)));
  }
  // Vectors too few for all sums, each to another one.
  template <int64_t count>
  [[gnu::always_inline]] void add_rest(const S* x, int64_t& i, int64_t n) {
    if constexpr (count > 0) {
      if (i + count * width <= n) {
        add_vectors<ways - 2 * count, count>(x + i);
        i += count * width;
      }
      add_rest<count / 2>(x, i, n);
    }
  }
  template <int64_t first, int64_t count>
  [[gnu::always_inline]] Vec<T> tree() const {
    if constexpr (count == 1)
      return sum_[first];
    else
      return join(tree<first, count / 2>(), tree<first + count / 2, count / 2>());
  }

  Vec<T> sum_[ways];
};

// All of x, lanes not yet put together.
template <Reduce op, class S>
[[gnu::always_inline]] inline Vec<double> row_lanes(const S* x, int64_t n) {
  using P = Piece<op, S>;
  Vec<double> total = broadcast(neutral<op, double>());
  for (int64_t i = 0; i < n; i += P::length) {
    P piece;
    piece.add(x + i, std::min(n - i, P::length));
    total = P::join(total, piece.total());
  }
  return total;
}

template <Reduce op, class S>
void vector_row(double& total, const S* x, int64_t n) {
  constexpr auto join = Piece<op, S>::join;
  total = join(total, across(row_lanes<op>(x, n), join));
}

// Rows of at most this many vectors are combined in T alone.
inline constexpr int64_t narrow_vectors = 8;

template <Reduce op, class S>
[[gnu::always_inline]] inline auto narrow_row(const S* x, int64_t n) {
  using T = compute_type<S>;
  constexpr int64_t width = lanes<T>;
  constexpr auto join = Piece<op, S>::join;
  Vec<T> sum = broadcast(neutral<op, T>()), other = sum;
  int64_t i = 0;
  for (; i + 2 * width <= n; i += 2 * width) {
    sum = join(sum, lift<op>(load(x + i)));
    other = join(other, lift<op>(load(x + i + width)));
  }
  if (i + width <= n) {
    sum = join(sum, lift<op>(load(x + i)));
    i += width;
  }
  if (i < n) other = join(other, lifted_first<op>(x + i, n - i));
  return join(sum, other);
}

// A row of at most two vectors; where it fills one, its last elements are loaded as a whole vector that ends with it.
template <Reduce op, class S>
[[gnu::always_inline]] inline auto shortest_row(const S* x, int64_t n) {
  using T = compute_type<S>;
  constexpr int64_t width = lanes<T>;
  if (n < width) return lifted_first<op>(x, n);
  const Vec<T> first = lift<op>(load(x)), last = lift<op>(load(x + n - width));
  return Piece<op, S>::join(first, first_or(broadcast(neutral<op, T>()), last, 2 * width - n));
}

// The results of as many rows as rows[0] has lanes, each row's lanes put together, go to totals.
template <class V, class Join>
[[gnu::always_inline]] inline void finish_rows(double* totals, V* rows, const Join& join) {
  across_each(rows, join);
  if constexpr (std::is_same_v<V, Vec<double>>) {
    store(totals, rows[0]);
  } else {
    using Half = std::make_integer_sequence<int, lanes<double>>;
    for (int half = 0; half < 2; ++half)
      store(totals + half * lanes<double>,
            __builtin_convertvector(lanes_from(rows[0], half * lanes<double>, Half()), Vec<double>));
  }
}

// All rows, as many at a time as a vector has lanes: fill(rows, at) sets rows[i] to the lanes of the row at(i).
template <class V, class S, class Fill, class Join>
[[gnu::always_inline]] inline void over_rows(double* totals, const S* x, int64_t stride, int64_t count,
                                             const Fill& fill, const Join& join) {
  constexpr int64_t together = sizeof(V) / sizeof(V{}[0]);
  int64_t first = 0;
  for (; first + together <= count; first += together) {
    V rows[together];
    fill(rows, [=](int64_t i) { return x + (first + i) * stride; });
    finish_rows(totals + first, rows, join);
  }
  if (first == count) return;
  V rows[together];
  double last[together];
  fill(rows, [=](int64_t i) { return x + std::min(first + i, count - 1) * stride; });
  finish_rows(last, rows, join);
  std::copy_n(last, count - first, totals + first);
}

template <Reduce op, class S>
void vector_rows(double* totals, const S* x, int64_t stride, int64_t count, int64_t n) {
  using T = compute_type<S>;
  constexpr auto join = Piece<op, S>::join;
  const auto rolled = [](auto f) {
    return [f](auto* rows, const auto& at) {
      using V = std::remove_reference_t<decltype(*rows)>;
      for (int64_t i = 0; i < static_cast<int64_t>(sizeof(V) / sizeof(V{}[0])); ++i) rows[i] = f(at(i));
    };
  };
  if (n <= 2 * lanes<T>)
    over_rows<Vec<T>>(
        totals, x, stride, count,
        [n](Vec<T>* rows, const auto& at) {
#pragma GCC unroll 16
          for (int64_t i = 0; i < lanes<T>; ++i) rows[i] = shortest_row<op>(at(i), n);
        },
        join);
  else if (n <= narrow_vectors * lanes<T>)
    over_rows<Vec<T>>(totals, x, stride, count, rolled([n](const S* row) { return narrow_row<op>(row, n); }), join);
  else
    over_rows<Vec<double>>(totals, x, stride, count, rolled([n](const S* row) { return row_lanes<op>(row, n); }), join);
}

template <Reduce op, class S>
void vector_all_rows(double& total, const S* x, int64_t stride, int64_t count, int64_t n) {
  using P = Piece<op, S>;
  const int64_t together = std::max<int64_t>(1, P::length / std::max<int64_t>(n, 1));
  Vec<double> sum = broadcast(neutral<op, double>());
  for (int64_t r = 0; r < count; r += together) {
    if (together == 1) {
      sum = P::join(sum, row_lanes<op>(x + r * stride, n));
      continue;
    }
    P piece;
    for (int64_t i = r; i < std::min(r + together, count); ++i) piece.add(x + i * stride, n);
    sum = P::join(sum, piece.total());
  }
  total = P::join(total, across(sum, P::join));
}

// sum, and so many rows of a vector of columns: at(r) gives row r's.
template <Reduce op, int64_t count, class V, class F>
[[gnu::always_inline]] inline V with_rows(V sum, const F& at) {
  const auto join = [](auto a, auto b) { return combine<op>(a, b); };
  if constexpr (count == 4)
    return join(sum, join(join(at(0), at(1)), join(at(2), at(3))));
  else
    return join(sum, at(0));
}

// So many vectors of columns, all rows.
template <Reduce op, int64_t vectors, class S>
[[gnu::always_inline]] inline void column_block(compute_type<S>* lanes_at, const S* x, int64_t stride, int64_t rows) {
  using T = compute_type<S>;
  Vec<T> sum[vectors];
#pragma GCC unroll 4
  for (int64_t v = 0; v < vectors; ++v) sum[v] = load(lanes_at + v * lanes<T>);
  const auto at = [=](int64_t r, int64_t v) { return lift<op>(load(x + r * stride + v * lanes<T>)); };
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
#pragma GCC unroll 4
    for (int64_t v = 0; v < vectors; ++v) sum[v] = with_rows<op, 4>(sum[v], [&](int64_t i) { return at(r + i, v); });
  for (; r < rows; ++r)
#pragma GCC unroll 4
    for (int64_t v = 0; v < vectors; ++v) sum[v] = with_rows<op, 1>(sum[v], [&](int64_t) { return at(r, v); });
#pragma GCC unroll 4
  for (int64_t v = 0; v < vectors; ++v) store(lanes_at + v * lanes<T>, sum[v]);
}

// The last columns, fewer than a vector.
template <Reduce op, class S>
void last_columns(compute_type<S>* lanes_at, const S* x, int64_t stride, int64_t rows, int64_t n) {
  auto sum = load_first(lanes_at, n);
  const auto at = [=](int64_t r) { return lift<op>(load_first(x + r * stride, n)); };
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) sum = with_rows<op, 4>(sum, [&](int64_t i) { return at(r + i); });
  for (; r < rows; ++r) sum = with_rows<op, 1>(sum, [&](int64_t) { return at(r); });
  store(lanes_at, sum, FirstLanes<compute_type<S>>(n));
}

// Four rows, or one, of many columns.
template <Reduce op, int64_t count, class S>
void add_rows(compute_type<S>* __restrict lanes_at, const S* __restrict x, int64_t stride, int64_t n) {
  constexpr int64_t width = lanes<compute_type<S>>, unrolled = count == 1 ? 4 : 1;
  int64_t j = 0;
  const auto add = [=](int64_t at) {
    store(lanes_at + at,
          with_rows<op, count>(load(lanes_at + at), [=](int64_t r) { return lift<op>(load(x + r * stride + at)); }));
  };
#pragma GCC unroll 1  // as in Piece
  for (; j + unrolled * width <= n; j += unrolled * width)
#pragma GCC unroll 4
    for (int64_t v = 0; v < unrolled; ++v) add(j + v * width);
#pragma GCC unroll 1
  for (; j + width <= n; j += width) add(j);
  if (j < n) last_columns<op>(lanes_at + j, x + j, stride, count, n - j);
}

// Few columns stay in registers for all rows. Many go through memory: four rows at a time from the caches, from beyond
// them (far) each by itself, for several streams at once come in slower than one.
template <Reduce op, class S>
void vector_columns(compute_type<S>* lanes_at, const S* x, int64_t stride, int64_t rows, int64_t n, bool far) {
  constexpr int64_t width = lanes<compute_type<S>>;
  if (n <= (far ? 4 : 8) * width) {
    int64_t j = 0;
    for (; j + 4 * width <= n; j += 4 * width) column_block<op, 4>(lanes_at + j, x + j, stride, rows);
    for (; j + width <= n; j += width) column_block<op, 1>(lanes_at + j, x + j, stride, rows);
    if (j < n) last_columns<op>(lanes_at + j, x + j, stride, rows, n - j);
    return;
  }
  int64_t r = 0;
  for (; r + 4 <= rows && !far; r += 4) add_rows<op, 4>(lanes_at, x + r * stride, stride, n);
  for (; r < rows; ++r) add_rows<op, 1>(lanes_at, x + r * stride, stride, n);
}

}  // namespace loom::cpu
