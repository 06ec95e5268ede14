// Single-precision functions that compilers turn into vector code: no branches, no calls, no tables. Errors are a few
// units in the last place. Coefficients of exp, log and tanh are Cephes' (S. Moshier), those of erf are Eigen's.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace loom::cpu::vector_math {

struct ExpParts {
  float excess;   // exp(r) - 1 of the reduced argument
  int32_t power;  // exp(x) = (1 + excess) * 2^power
};

inline float power_of_two(int32_t n) { return std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23); }

// Rounds by adding 1.5 * 2^23, which leaves the integer in the low bits.
inline ExpParts exp_parts(float x) {
  const float shifted = x * 1.44269504088896341f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  const uint32_t power = std::bit_cast<uint32_t>(shifted) - 0x4b400000u;
  return {y * r * r + r, static_cast<int32_t>(power)};
}

// Overflows to infinity, underflows through the subnormals to 0; NaN stays NaN.
inline float exp(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const ExpParts e = exp_parts(x);
  const int32_t half = e.power >> 1;  // in two steps: 2^128 and 2^-150 are no floats
  return (e.excess + 1.0f) * power_of_two(half) * power_of_two(e.power - half);
}

inline float expm1(float x) {
  float z = x < -30.0f ? -30.0f : x;
  z = z > 88.0f ? 88.0f : z;
  const ExpParts e = exp_parts(z);
  const float scale = power_of_two(e.power);
  return x > 88.0f ? exp(x) : scale * e.excess + (scale - 1.0f);
}

// log of x * 2^-shift for normal positive x; anything for other x.
inline float log_of_normal(float x, int32_t shift = 0) {
  const uint32_t bits = std::bit_cast<uint32_t>(x) + (0x3f800000u - 0x3f3504f3u);  // exponent rounds at sqrt(1/2)
  const auto exponent = static_cast<float>(static_cast<int32_t>(bits >> 23) - (127 + shift));
  const float f = std::bit_cast<float>((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  float y = 7.0376836292e-2f;
  y = y * f + -1.1514610310e-1f;
  y = y * f + 1.1676998740e-1f;
  y = y * f + -1.2420140846e-1f;
  y = y * f + 1.4249322787e-1f;
  y = y * f + -1.6668057665e-1f;
  y = y * f + 2.0000714765e-1f;
  y = y * f + -2.4999993993e-1f;
  y = y * f + 3.3333331174e-1f;
  const float square = f * f;
  y = y * f * square + exponent * -2.12194440e-4f - 0.5f * square;
  return (f + y) + exponent * 0.693359375f;
}

inline float log(float x) {
  const bool tiny = x < std::numeric_limits<float>::min();
  const float result = log_of_normal(tiny ? x * 8388608.0f : x, tiny ? 23 : 0);
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const float special = x == 0.0f ? -infinity : x == infinity ? infinity : std::numeric_limits<float>::quiet_NaN();
  return x > 0.0f && x < infinity ? result : special;
}

// What rounding 1 + x lost is added back.
inline float log1p(float x) {
  const float u = 1.0f + x, y = log(u);
  const float corrected = y + (x - (u - 1.0f)) / u;
  return y - y == 0.0f ? corrected : y;
}

inline float tanh(float x) {
  const float a = x < 0.0f ? -x : x, z = x * x;
  float y = -5.70498872745e-3f;
  y = y * z + 2.06390887954e-2f;
  y = y * z + -5.37397155531e-2f;
  y = y * z + 1.33314422036e-1f;
  y = y * z + -3.33332819422e-1f;
  const float small = y * z * x + x;
  const float large = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  return a < 0.625f ? small : x < 0.0f ? -large : large;
}

inline float erf(float x) {
  const float z = x * x;
  float p = -2.72614225801306e-10f;
  p = p * z + 2.77068142495902e-08f;
  p = p * z + -2.10102402082508e-06f;
  p = p * z + -5.69250639462346e-05f;
  p = p * z + -7.34990630326855e-04f;
  p = p * z + -2.95459980854025e-03f;
  p = p * z + -1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * z + -2.13374055278905e-04f;
  q = q * z + -1.68282697438203e-03f;
  q = q * z + -7.37332916720468e-03f;
  q = q * z + -1.42647390514189e-02f;
  const float inside = x * p / q;
  return x >= 3.92f ? 1.0f : x <= -3.92f ? -1.0f : inside;
}

// log(1 + exp(x)), from the side on which exp does not overflow. NaN comes through the correction.
inline float softplus(float x) {
  const float z = exp(x < 0.0f ? x : -x), u = 1.0f + z;
  return (x < 0.0f ? 0.0f : x) + (log_of_normal(u) + (z - (u - 1.0f)) / u);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace loom::cpu::vector_math
