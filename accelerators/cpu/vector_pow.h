// SPDX-License-Identifier: Apache-2.0
// Powers of floats in two floats, 0.8 units in the last place: 2^(y log2|x|), where y log2|x| has 33 bits and more.
// Needs fused multiply-add, whose products are exact; without it pow() is computed in double.
#pragma once

#include <algorithm>

#include <loom/accelerators/cpu/vector_special.h>

namespace loom::cpu::vector_math {

struct TwoFloats {
  float high, low;  // their sum; low is up to 2^-12 of high
};

// x = 2^exponent (1 + f), s + s_low = f / (2 + f)
struct LogSteps {
  float s, s_low, exponent;
};
// Of normal positive x * 2^shift.
[[gnu::always_inline]] inline LogSteps log_steps(float x, float shift = 0) {
  const LogParts<float> p = log_parts(x, shift);
  const float f = p.fraction, d = f + 2.0f, d_low = (2.0f - d) + f, inverse = 1.0f / d;
  const float s = f * inverse;
  return {s, multiply_add(-s, d_low, multiply_add(-s, d, f)) * inverse, p.exponent};
}

// log2(1 + f) = s (unit + slope s^2 + ...)
[[gnu::always_inline]] inline TwoFloats log2_in_two(LogSteps x) {
  constexpr float unit = 2.88539004f, unit_low = 3.85192607e-08f, slope = 0.961796701f;
  const float s = x.s, z = s * s, z_low = multiply_add(s, s, -z);
  const float rest = z * polynomial(z, 0.577078819, 0.411927253, 0.336490691);
  const float g = slope * z, g_low = multiply_add(slope, z_low, multiply_add(z, rest, multiply_add(slope, z, -g)));
  const float a = unit + g, a_low = ((unit - a) + g) + (g_low + unit_low);
  const float l = s * a, l_low = multiply_add(x.s_low, (a + g) + g, multiply_add(s, a_low, multiply_add(s, a, -l)));
  const float high = x.exponent + l;
  return {high, ((x.exponent - high) + l) + l_low};
}

[[gnu::always_inline]] inline TwoFloats product(TwoFloats x, float y) {
  const float high = x.high * y;
  return {high, multiply_add(x.low, y, multiply_add(x.high, y, -high))};
}

// 2^(high + low); near: |high| <= near_limit, so that the result is a normal number. Else of the two halves of the
// power of two none is infinite or 0.
inline constexpr float near_limit = 125.0f;
template <bool near>
[[gnu::always_inline]] inline float exp2_of_two(TwoFloats x) {
  constexpr float ln2 = 0.693147182f, tail = -1.90465421e-09f;
  const float t = near ? x.high : bounded(x.high, -160.0f, 130.0f), shifted = t + rounder<float>;
  const float f = t - (shifted - rounder<float>), u = f + x.low, square = u * u;
  const float b = multiply_add(f, ln2, 1.0f), b_low = multiply_add(f, ln2, 1.0f - b);
  const float q = multiply_add(square, polynomial(u, 0.00961850584, 0.00133902242, 0.000153265501),
                               polynomial(u, 0.240226477, 0.0555036217));
  const float rest = multiply_add(square, q, multiply_add(ln2, x.low, multiply_add(tail, f, b_low)));
  const auto bits = std::bit_cast<uint32_t>(shifted), half = bits >> 1;
  if constexpr (near) return std::bit_cast<float>(std::bit_cast<uint32_t>(b + rest) + (bits << 23));
  const auto first = std::bit_cast<float>((half + 127) << 23), second = std::bit_cast<float>((bits - half + 127) << 23);
  return (b + rest) * first * second;
}

// For |y| up to here.
inline constexpr float power_limit = has_fma ? 0x1p12f : std::numeric_limits<float>::max();

// Of |x|; plain: all x are normal and positive.
template <bool plain>
[[gnu::always_inline]] inline LogSteps log_steps_of_size(float x) {
  if constexpr (plain) return log_steps(x);
  const float size = magnitude(x);
  const bool tiny = size < std::numeric_limits<float>::min();
  return log_steps(tiny ? size * 0x1p23f : size, tiny ? 23.0f : 0.0f);
}

// x^y, given |x|^y for x that is neither 0 nor infinite
[[gnu::always_inline]] inline float power_of_finite(float r, float x, float y) {
  const float size = magnitude(x), of_zero = y < 0.0f ? infinity<float> : 0.0f;
  const float finite = size == 0.0f ? of_zero : r;
  const float beyond = y < 0.0f && size == infinity<float> ? 0.0f : size;  // NaN too
  return with_sign_of_power(size < infinity<float> ? finite : beyond, x, y);
}
// The same, log = y log2|x|
[[gnu::always_inline]] inline float power_of_log2(TwoFloats log, float x, float y) {
  return power_of_finite(exp2_of_two<false>(log), x, y);
}

[[gnu::always_inline]] inline float power(float x, float y) {
  if constexpr (!has_fma)
    return pow(x, y);
  else
    return power_of_log2(product(log2_in_two(log_steps_of_size<false>(x)), y), x, y);
}

inline constexpr int64_t power_piece = 256;
// In three loops: processors look ahead over one of them, but not over all.
template <bool plain, class Exponent>
void piece_of_powers(float* __restrict y, const float* __restrict x, int64_t n, const Exponent& exponent) {
  alignas(64) float high[power_piece], low[power_piece], whole[power_piece];
  for (int64_t i = 0; i < n; ++i) {
    const LogSteps steps = log_steps_of_size<plain>(x[i]);
    high[i] = steps.s;
    low[i] = steps.s_low;
    whole[i] = steps.exponent;
  }
  int32_t farthest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const TwoFloats log = product(log2_in_two({high[i], low[i], whole[i]}), exponent(i));
    high[i] = log.high;
    low[i] = log.low;
    farthest = std::max(farthest, std::bit_cast<int32_t>(magnitude(log.high)));
  }
  if (plain && farthest <= std::bit_cast<int32_t>(near_limit))
    for (int64_t i = 0; i < n; ++i) y[i] = exp2_of_two<true>({high[i], low[i]});
  else if (plain)
    for (int64_t i = 0; i < n; ++i) y[i] = exp2_of_two<false>({high[i], low[i]});
  else
    for (int64_t i = 0; i < n; ++i) y[i] = power_of_log2({high[i], low[i]}, x[i], exponent(i));
}

struct PowerKind {
  bool within, plain;  // all exponents are within power_limit; all bases normal and positive
};
template <class Exponent>
PowerKind kind_of_powers(const float* x, int64_t n, const Exponent& exponent) {
  constexpr auto smallest = std::bit_cast<int32_t>(std::numeric_limits<float>::min());
  constexpr auto largest = std::bit_cast<int32_t>(std::numeric_limits<float>::max());
  int32_t least = smallest, most = largest, limit = std::bit_cast<int32_t>(power_limit);
  for (int64_t i = 0; i < n; ++i) {
    least = std::min(least, std::bit_cast<int32_t>(x[i]));
    most = std::max(most, std::bit_cast<int32_t>(x[i]));
    limit = std::max(limit, std::bit_cast<int32_t>(magnitude(exponent(i))));
  }
  return {limit == std::bit_cast<int32_t>(power_limit), least == smallest && most == largest};
}

// y[i] = x[i]^exponent(i)
template <class Exponent>
void powers(float* __restrict y, const float* __restrict x, int64_t n, const Exponent& exponent) {
  for (int64_t begin = 0; begin < n; begin += power_piece) {
    const int64_t count = std::min(power_piece, n - begin);
    const auto after = [&](int64_t i) { return exponent(begin + i); };
    const PowerKind kind = kind_of_powers(x + begin, count, after);
    if (!kind.within)
      for (int64_t i = begin; i < begin + count; ++i)
        y[i] = magnitude(exponent(i)) <= power_limit ? power(x[i], exponent(i)) : std::pow(x[i], exponent(i));
    else if constexpr (!has_fma)
      for (int64_t i = begin; i < begin + count; ++i) y[i] = pow(x[i], exponent(i));
    else if (kind.plain)
      piece_of_powers<true>(y + begin, x + begin, count, after);
    else
      piece_of_powers<false>(y + begin, x + begin, count, after);
  }
}

}  // namespace loom::cpu::vector_math
