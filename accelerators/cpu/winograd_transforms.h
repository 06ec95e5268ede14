// SPDX-License-Identifier: Apache-2.0
// Winograd's transformations along a dimension and along both. Polynomials are evaluated at points, multiplied there
// and interpolated: at 0, infinity, and 1 and -1 for 2 outputs, 11/16, -11/16, 11/8 and -11/8 for 4. Among points in
// pairs, which take the fewest operations, these have the least errors (winograd.h); their powers are exact.
#pragma once

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu::winograd {

inline constexpr double near_point = 11.0 / 16, far_point = 2 * near_point;
inline constexpr double near_square = near_point * near_point, far_square = far_point * far_point;

[[gnu::always_inline]] inline Vec<float> scaled(Vec<float> v, double by) {
  return v * broadcast(static_cast<float>(by));
}
// a * by + c
[[gnu::always_inline]] inline Vec<float> scaled_sum(Vec<float> a, double by, Vec<float> c) {
  return fma(a, broadcast(static_cast<float>(by)), c);
}

// side + 2 pixels of an image.
template <int side>
struct FromImage;

template <>
struct FromImage<2> {
  static constexpr int from = 4, to = 4;
  [[gnu::always_inline]] static void run(const Vec<float> (&d)[4], Vec<float> (&result)[4]) {
    result[0] = d[0] - d[2];
    result[1] = d[1] + d[2];
    result[2] = d[2] - d[1];
    result[3] = d[3] - d[1];
  }
};

template <>
struct FromImage<4> {
  static constexpr int from = 6, to = 6;
  [[gnu::always_inline]] static void run(const Vec<float> (&d)[6], Vec<float> (&result)[6]) {
    constexpr double both = near_square * far_square, either = near_square + far_square;
    result[0] = scaled_sum(d[0], both, scaled_sum(d[2], -either, d[4]));
    pair(d, near_point, far_square, result[1], result[2]);
    pair(d, far_point, near_square, result[3], result[4]);
    result[5] = scaled_sum(d[1], both, scaled_sum(d[3], -either, d[5]));
  }

 private:
  [[gnu::always_inline]] static void pair(const Vec<float> (&d)[6], double point, double other_square, Vec<float>& plus,
                                          Vec<float>& minus) {
    const Vec<float> even = scaled_sum(d[2], -other_square, d[4]), odd = scaled_sum(d[1], -other_square, d[3]);
    plus = scaled_sum(odd, point, even);
    minus = scaled_sum(odd, -point, even);
  }
};

// Few terms: three taps, or a tile of dy.
template <int side, int terms>
struct FromTerms {
  static constexpr int from = terms, to = side + 2;
  [[gnu::always_inline]] static void run(const Vec<float> (&g)[terms], Vec<float> (&result)[side + 2]) {
    if constexpr (side == 2) {
      result[0] = g[0];
      pair(g, 1, 0.5, result[1], result[2]);
    } else {
      constexpr double apart = far_square - near_square;
      result[0] = scaled(g[0], 1 / (near_square * far_square));
      pair(g, near_point, -0.5 / (near_square * apart), result[1], result[2]);
      pair(g, far_point, 0.5 / (far_square * apart), result[3], result[4]);
    }
    result[side + 1] = g[terms - 1];
  }

 private:
  [[gnu::always_inline]] static void pair(const Vec<float> (&g)[terms], double point, double scale, Vec<float>& plus,
                                          Vec<float>& minus) {
    Vec<float> even = scaled(g[0], scale), odd = scaled(g[1], point * scale);
    if constexpr (terms > 2) even = scaled_sum(g[2], point * point * scale, even);
    if constexpr (terms > 3) odd = scaled_sum(g[3], point * point * point * scale, odd);
    plus = even + odd;
    minus = even - odd;
  }
};

// Products at the points to the terms of what they interpolate: outputs of a tile, or three taps.
template <int side, int terms>
struct ToTerms {
  static constexpr int from = side + 2, to = terms;
  [[gnu::always_inline]] static void run(const Vec<float> (&m)[side + 2], Vec<float> (&result)[terms]) {
    const Vec<float> sum = m[1] + m[2], difference = m[1] - m[2];
    if constexpr (side == 2) {
      result[0] = m[0] + sum;
      result[1] = terms == 2 ? difference + m[3] : difference;
      if constexpr (terms == 3) result[2] = sum + m[3];
    } else {
      const Vec<float> far_sum = m[3] + m[4], far_difference = m[3] - m[4];
      result[0] = m[0] + (sum + far_sum);
      result[1] = scaled_sum(far_difference, far_point, scaled(difference, near_point));
      result[2] =
          scaled_sum(far_sum, far_square, terms == 3 ? scaled_sum(sum, near_square, m[5]) : scaled(sum, near_square));
      if constexpr (terms == 4)
        result[3] =
            scaled_sum(far_difference, far_point * far_square, scaled_sum(difference, near_point * near_square, m[5]));
    }
  }
};

// From what get(row, column) gives to what put(row, column, value) takes.
template <class Transform, class Get, class Put>
[[gnu::always_inline]] inline void transform(const Get& get, const Put& put) {
  constexpr int from = Transform::from, to = Transform::to;
  Vec<float> columns[from][to];
#pragma GCC unroll 6
  for (int j = 0; j < from; ++j) {
    Vec<float> column[from];
#pragma GCC unroll 6
    for (int i = 0; i < from; ++i) column[i] = get(i, j);
    Transform::run(column, columns[j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < to; ++i) {
    Vec<float> row[from], result[to];
#pragma GCC unroll 6
    for (int j = 0; j < from; ++j) row[j] = columns[j][i];
    Transform::run(row, result);
#pragma GCC unroll 6
    for (int j = 0; j < to; ++j) put(i, j, result[j]);
  }
}

}  // namespace loom::cpu::winograd
