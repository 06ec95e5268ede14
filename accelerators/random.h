// From the words of philox.h to the numbers of a draw, the same bits on every device. Only operations that IEEE 754
// rounds in one way are used (+ - * / sqrt), and every file that includes this is compiled without contraction to fused
// multiply-adds (-ffp-contract=off, nvcc -fmad=false).
//
// A draw of element type T (float: f32 and 16 bits, double: f64) takes one word (two words) an element; dropout takes
// 16 bits.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <loom/accelerators/dtype.h>
#include <loom/accelerators/philox.h>

namespace loom::draw {

// [a, b) of width b - a; `limit` is the largest number below b of the dtype that the result is stored in.
template <class T>
LOOM_HOST_DEVICE T uniform(T u, T a, T width, T limit) {
  const T x = a + width * u;
  return x < limit ? x : limit;
}

// The largest number below b of a 16-bit type.
template <class Number>
float largest_half_below(double b) {
  const Number nearest(static_cast<float>(b));
  if (static_cast<double>(static_cast<float>(nearest)) < b) return nearest;
  const bool negative = (nearest.bits & 0x8000u) != 0, zero = (nearest.bits & 0x7fffu) == 0;
  return Number::from_bits(static_cast<uint16_t>(zero ? 0x8001 : negative ? nearest.bits + 1 : nearest.bits - 1));
}
// The largest number below b of dtype t, as a T.
template <class T>
T largest_below(DType t, double b) {
  if (t == f16) return static_cast<T>(largest_half_below<Half>(b));
  if (t == bf16) return static_cast<T>(largest_half_below<BFloat16>(b));
  const T nearest = static_cast<T>(b);
  return static_cast<double>(nearest) < b ? nearest : std::nextafter(nearest, -std::numeric_limits<T>::infinity());
}

// Of the 2^16 values of 16 bits, how many keep an element that is dropped with probability p: to the nearest, but none
// or all of them for p = 1 and p = 0 only.
inline uint32_t values_kept(double p) {
  constexpr double values = 65536;
  return static_cast<uint32_t>(
      std::clamp(values - std::round(p * values), p < 1 ? 1.0 : 0.0, p > 0 ? values - 1 : values));
}
// The 16 bits of element i of the 8 of a block: the words in their order, the low half of each first. By choices, for
// an array that is indexed lies in a GPU's memory.
LOOM_HOST_DEVICE inline uint32_t half_word(const std::array<uint32_t, 4>& words, uint32_t i) {
  const uint32_t front = (i & 2) != 0 ? words[1] : words[0], back = (i & 2) != 0 ? words[3] : words[2];
  const uint32_t word = (i & 4) != 0 ? back : front;
  return (i & 1) != 0 ? word >> 16 : word & 0xffffu;
}

// a + [0, range) by the upper half of a product: no division, bias below 2^-64 * range.
LOOM_HOST_DEVICE inline int64_t integer(uint32_t low, uint32_t high, int64_t a, uint64_t range) {
  __extension__ using Wide = unsigned __int128;
  const uint64_t word = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(Wide{word} * range >> 64));
}

// Taylor's series of cos(x) and sin(x) / x, s = x * x, nested from term k to the last.
template <class T, int k, int last>
LOOM_HOST_DEVICE T cosine_series(T s) {
  if constexpr (k > last)
    return T(1);
  else
    return T(1) - s * T(1.0 / ((2 * k - 1) * (2 * k))) * cosine_series<T, k + 1, last>(s);
}
template <class T, int k, int last>
LOOM_HOST_DEVICE T sine_series(T s) {
  if constexpr (k > last)
    return T(1);
  else
    return T(1) - s * T(1.0 / ((2 * k) * (2 * k + 1))) * sine_series<T, k + 1, last>(s);
}
// 1 + s / 3 + s^2 / 5 + ..., which is artanh(x) / x.
template <class T, int k, int last>
LOOM_HOST_DEVICE T artanh_series(T s) {
  if constexpr (k == last)
    return T(1.0 / (2 * k + 1));
  else
    return artanh_series<T, k + 1, last>(s) * s + T(1.0 / (2 * k + 1));
}

// log(u) of a normal number u in (0, 1]: u = m * 2^e with m in [sqrt(1/2), sqrt(2)), log(m) = 2 artanh((m - 1) / (m +
// 1)).
template <class T>
[[gnu::always_inline]] inline LOOM_HOST_DEVICE T log_of(T u) {
  constexpr bool narrow = std::is_same_v<T, float>;
  using Bits = std::conditional_t<narrow, uint32_t, uint64_t>;
  using Signed = std::conditional_t<narrow, int32_t, int64_t>;
  constexpr int mantissa = narrow ? 23 : 52, terms = narrow ? 5 : 12;
  constexpr Bits one = std::bit_cast<Bits>(T(1)), root = std::bit_cast<Bits>(T(0.70710678118654752440));
  const Bits bits = std::bit_cast<Bits>(u) + (one - root);
  const auto exponent = static_cast<Signed>(bits >> mantissa) - static_cast<Signed>(one >> mantissa);
  const T m = std::bit_cast<T>((bits & ((Bits{1} << mantissa) - 1)) + root);
  const T f = (m - T(1)) / (m + T(1));
  const T twice = T(2) * f * artanh_series<T, 0, terms>(f * f);
  return static_cast<T>(exponent) * T(0.69314718055994530942) + twice;
}

template <class T>
struct Pair {
  T first, second;
};

// cos and sin of 2 pi u, u in [0, 1): whole quarter turns, and a rest of at most an eighth either way.
template <class T>
[[gnu::always_inline]] inline LOOM_HOST_DEVICE Pair<T> turn(T u) {
  constexpr int terms = std::is_same_v<T, float> ? 5 : 9;
  const T quarters = u * T(4);
  const auto q = static_cast<int32_t>(quarters + T(0.5));
  const T angle = (quarters - static_cast<T>(q)) * T(1.57079632679489661923), s = angle * angle;
  const T c = cosine_series<T, 1, terms>(s), d = angle * sine_series<T, 1, terms>(s);
  const T along = (q & 1) != 0 ? d : c, across = (q & 1) != 0 ? c : d;
  return {((q + 1) & 2) != 0 ? -along : along, (q & 2) != 0 ? -across : across};
}

// Two independent standard normal numbers from two uniform ones (Box, Muller 1958).
template <class T>
[[gnu::always_inline]] inline LOOM_HOST_DEVICE Pair<T> normal_pair(T u, T v) {
  const T radius = std::sqrt(T(-2) * log_of(T(1) - u));
  const Pair<T> direction = turn(v);
  return {radius * direction.first, radius * direction.second};
}

}  // namespace loom::draw
