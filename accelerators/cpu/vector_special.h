// The error functions, hyperbolic functions and powers in the manner of vector_math.h.
#pragma once

#include <cmath>

#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu::vector_math {

// exp(x^2) erfc(x) of x in [0, 28], as a polynomial in (x - 2) / (x + 2) over 1 + 2 x.
[[gnu::always_inline]] inline double scaled_erfc(double x) {
  const double u = (x - 2) / (x + 2);
  const double p = polynomial(
      u, 1.2769783815525289, -0.092763826585746348, -0.16603039761531471, 0.16405128003348315, -0.05422000099050097,
      -0.0080340150837840425, 0.0087226538389447005, 0.0012713389850210323, -0.0014568134882506222,
      -0.00045434095944711487, 0.00020636379831755368, 0.00015103952283435044, -1.4935614841383917e-06,
      -3.6422654752343195e-05, -1.3544651598673152e-05, 3.7022599537283619e-06, 5.3350437549323654e-06,
      1.5338642476950259e-06, -8.5542221008080037e-07, -8.9320228237042339e-07, -1.1401384834575501e-07,
      2.0607072010083007e-07, 8.0249705327633968e-08, -1.8695705894252453e-08, -1.1185501883772645e-08);
  return p / (1 + 2 * x);
}

// exp(-x^2), x in [0, 28]: what rounding the square lost matters, for it is large. The upper part has a short square.
[[gnu::always_inline]] inline double exp_of_minus_square(double x) {
  const double high = std::bit_cast<double>(std::bit_cast<uint64_t>(x) & ~uint64_t{0x7ffffff});
  return exp(-high * high) * exp((high - x) * (high + x));
}

[[gnu::always_inline]] inline double erfc_of_positive(double x) {
  const double a = x > 28 ? 28 : x;
  return exp_of_minus_square(a) * scaled_erfc(a);
}

// 2^t to 29 bits, for results that are rounded to float; t in [-1000, 1000].
[[gnu::always_inline]] inline double exp2_for_float(double t) {
  const double shifted = t + rounder<double>, f = t - (shifted - rounder<double>);
  const double p = polynomial(f, 1.0000000005542234, 0.69314720573704077, 0.24022646890584217, 0.055503287769854118,
                              0.0096184889631267437, 0.0013399931291058869, 0.00015345810322727592);
  return p * power_of_two(shifted);
}

// The square of a float is exact, and 29 bits are enough. From 10.5 on the result is no float but 0.
[[gnu::always_inline]] inline float erfc(float x) {
  const double wide = x, size = magnitude(wide), a = size > 10.5 ? 10.5 : size;
  const double over = a + 3, below = multiply_add(2.0, a, 1.0), inverse = 1 / (over * below);  // one division for two
  const double u = (a - 3) * (below * inverse);
  const double p = polynomial(u, 1.2530080595166729, -0.13562114245342097, -0.047562441835762864, 0.12964648326416826,
                              -0.11927024563634304, 0.068295773753124545, -0.02380151679791947, 0.0025639470499689652,
                              0.0020076980794783566, -0.00076786730328896819, -0.00026435686507829918);
  const double tail = exp2_for_float(a * a * -1.44269504088896340736) * p * (over * inverse);
  return static_cast<float>(wide < 0 ? 2 - tail : tail);
}

[[gnu::always_inline]] inline double erfc(double x) {
  const double tail = erfc_of_positive(magnitude(x));
  return x < 0 ? 2 - tail : tail;
}

// The rational function is Eigen's.
[[gnu::always_inline]] inline float erf(float x) {
  const float z = x * x;
  const float p = polynomial(z, -1.60960333262415e-02, -2.95459980854025e-03, -7.34990630326855e-04,
                             -5.69250639462346e-05, -2.10102402082508e-06, 2.77068142495902e-08, -2.72614225801306e-10);
  const float q = polynomial(z, -1.42647390514189e-02, -7.37332916720468e-03, -1.68282697438203e-03,
                             -2.13374055278905e-04, -1.45660718464996e-05);
  const float inside = x * (p / q);
  return x >= 3.92f ? 1.0f : x <= -3.92f ? -1.0f : inside;
}

[[gnu::always_inline]] inline double erf(double x) {
  const double a = magnitude(x), z = a * a;
  const double inner =
      a * polynomial(z, 1.1283791670955126, -0.37612638903183521, 0.11283791670944185, -0.026866170643111465,
                     0.005223977606118293, -0.00085483259293009991, 0.00012055293576403055, -1.4924712291205996e-05,
                     1.6447131426704801e-06, -1.6206312584843353e-07, 1.3710975093595289e-08, -7.7794582458868558e-10);
  const double outer = 1 - erfc_of_positive(a > 7 ? 7 : a);
  return with_sign_of(a > 1 ? outer : inner, x);
}

template <class T>
[[gnu::always_inline]] inline T sinh(T x) {
  const T t = expm1(magnitude(x));
  return with_sign_of(T(0.5) * (t + t / (t + T(1))), x);
}

template <class T>
[[gnu::always_inline]] inline T cosh(T x) {
  const T t = exp(magnitude(x));
  return T(0.5) * t + T(0.5) / t;
}
// From here on exp overflows before they do.
template <class T>
inline constexpr double hyperbolic_limit = narrow<T> ? 88.0 : 709.0;

// For |x| whose square is finite.
template <class T>
[[gnu::always_inline]] inline T asinh(T x) {
  const T a = magnitude(x), z = a * a;
  return with_sign_of(log1p(a + z / (T(1) + std::sqrt(z + T(1)))), x);
}
template <class T>
[[gnu::always_inline]] inline T acosh(T x) {
  const T t = x - T(1), y = log1p(t + std::sqrt(t * (t + T(2))));
  return t < T(0) ? std::numeric_limits<T>::quiet_NaN() : y;
}
template <class T>
inline constexpr double square_limit = narrow<T> ? 1e18 : 1e150;

template <class T>
[[gnu::always_inline]] inline T atanh(T x) {
  const T a = magnitude(x);
  return with_sign_of(T(0.5) * log1p((a + a) / (T(1) - a)), x);
}

// log2 of a magnitude that came from a float, to 37 bits.
[[gnu::always_inline]] inline double log2_of_float(double x) {
  const LogParts<double> parts = log_parts(x);
  const double s = parts.fraction / (parts.fraction + 2);
  const double q = polynomial(s * s, 2.88539008179008, 0.96179667335016931, 0.5770835832594695, 0.41167282712503125,
                              0.34072800815412137);
  const double finite = multiply_add(s, q, parts.exponent);
  const double above = x == 0 ? -infinity<double> : finite;
  return x < infinity<double> ? above : x;  // NaN too
}

// The whole number nearest to x >= 0.
[[gnu::always_inline]] inline float nearest(float x) { return x >= 0x1p23f ? x : (x + 0x1p23f) - 0x1p23f; }

// r = |x|^y with the sign, and the NaN, of x^y: by whether y is even, odd or no whole number. For finite y. One choice
// after the other: of choices within choices compilers make branches, and no vectors.
[[gnu::always_inline]] inline float with_sign_of_power(float r, float x, float y) {
  const float a = magnitude(y), half = 0.5f * a;
  const float limit = x == -infinity<float> ? r : std::numeric_limits<float>::quiet_NaN();
  const float of_fraction = x == 0.0f ? r : limit;
  const float of_whole = nearest(half) == half ? r : -r;
  const float of_negative = nearest(a) == a ? of_whole : of_fraction;
  const float result = with_sign_of(1.0f, x) < 0.0f ? of_negative : r;
  return y == 0.0f ? 1.0f : result;
}

// 2^(y log2|x|) in double.
[[gnu::always_inline]] inline float pow(float x, float y) {
  const double t = static_cast<double>(y) * log2_of_float(magnitude(static_cast<double>(x)));
  return with_sign_of_power(static_cast<float>(exp2_for_float(clamped(t, -160, 130))), x, y);
}

}  // namespace loom::cpu::vector_math
