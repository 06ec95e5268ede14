// SPDX-License-Identifier: Apache-2.0
// exp for sums of floats, in vectors written out, where a register can hold a table: powers of 2 by sixteenths, or by
// eighths, leave so little to a polynomial that three steps do.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/lookup.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu {

template <class T>
inline constexpr bool has_table_exp = has_permute && std::is_same_v<T, float>;

inline constexpr int exp_parts = lanes<float>, exp_part_bits = 23 - std::countr_zero(static_cast<unsigned>(exp_parts));

// 2^(j / exp_parts), less what j shifted into place adds to it.
inline constexpr std::array<uint32_t, exp_parts> exp_table = [] {
  constexpr float sixteenths[] = {1.0f,       1.0442737f, 1.0905077f, 1.1387886f, 1.1892071f, 1.2418578f,
                                  1.2968396f, 1.3542556f, 1.4142135f, 1.4768262f, 1.5422108f, 1.6104903f,
                                  1.6817929f, 1.7562522f, 1.8340081f, 1.9152066f};
  std::array<uint32_t, exp_parts> table{};
  for (unsigned j = 0; j < exp_parts; ++j)
    table[j] = std::bit_cast<uint32_t>(sixteenths[j * 16 / exp_parts]) - (j << exp_part_bits);
  return table;
}();

// exp(x) = scale * rest
template <class T>
struct ExpFactors {
  Vec<T> scale, rest;
};

// Of -87 <= x < 88, right to two units in the last place; but for `exact` also to 3e-9 x, which is what ln 2 as one
// float leaves: nothing in a sum that begins with 1.
template <bool exact, class T>
  requires(has_table_exp<T>)
[[gnu::always_inline]] inline ExpFactors<T> exp_factors(Vec<T> x) {
  constexpr T second = exp_parts == 16 ? 0.50001622f : 0.50006473f, third = exp_parts == 16 ? 0.16666719f : 0.16666859f;
  const Vec<T> rounder = broadcast(T(0x1.8p23));  // adding and subtracting it rounds to a whole number
  const Vec<T> shifted = fma(x, broadcast(T(1.44269504) * exp_parts), rounder), n = shifted - rounder;
  Vec<T> r = fma(n, broadcast(T(-0.693147181) / exp_parts), x);
  if constexpr (exact) r = fma(n, broadcast(T(1.90465432e-9) / exp_parts), r);
  const auto number = (Vec<vector_math::Bits<T>>)shifted;
  const Vec<T> one = broadcast(T(1));
  return {(Vec<T>)(permute(load(exp_table.data()), number) + (number << exp_part_bits)),
          fma(fma(fma(r, broadcast(third), broadcast(second)), r, one), r, one)};
}

template <class T>
inline constexpr T least_power = -87;  // powers of less count as 0

// exp(x), x < 88; NaN of NaN.
template <class T>
[[gnu::always_inline]] inline Vec<T> exp_or_zero(Vec<T> x) {
  const ExpFactors<T> e = exp_factors<true, T>(x);
  return x < broadcast(least_power<T>) ? Vec<T>{} : e.scale * e.rest;
}

// sum + exp(x), of least where x is below it: for sums to which 1e-38 is nothing.
template <class T>
[[gnu::always_inline]] inline Vec<T> add_exp(Vec<T> sum, Vec<T> x, Vec<T> least) {
  const ExpFactors<T> e = exp_factors<false, T>(least > x ? least : x);
  return fma(e.scale, e.rest, sum);
}

}  // namespace loom::cpu
