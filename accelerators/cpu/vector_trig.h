// Circular functions and their inverses in the manner of vector_math.h. Sines are right for |x| <= turn_limit; callers
// send larger arguments to libm.
#pragma once

#include <cmath>

#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu::vector_math {

template <class T>
inline constexpr double turn_limit = narrow<T> ? 1e5 : 1e6;

template <class T>
struct Turned {
  T quarters, rest;  // x = quarters * pi / 2 + rest, |rest| <= pi / 4
};

template <class T>
[[gnu::always_inline]] inline Turned<T> turned(T x) {
  const T n = multiply_add(x, T(0.63661977236758134308), rounder<T>) - rounder<T>;
  if constexpr (narrow<T> && has_fma) {
    T r = multiply_add(n, -0x1.921fb6p+0f, x);
    r = multiply_add(n, 0x1.777a5cp-25f, r);
    return {n, multiply_add(n, 0x1.ee59dap-50f, r)};
  } else {  // pi / 2 in pieces of 33 bits, whose products with n are exact in double
    const double wide = static_cast<double>(n);
    const double r = (static_cast<double>(x) - wide * 0x1.921fb544p+0) - wide * 0x1.0b4611a6p-34;
    return {n, static_cast<T>(r - wide * 0x1.3198a2e037073p-69)};
  }
}

template <class T>
[[gnu::always_inline]] inline T sine_of_rest(T r) {
  const T z = r * r;
  if constexpr (narrow<T>)
    return multiply_add(z * r, polynomial(z, -0.166666549, 0.00833217624, -0.000195169476), r);
  else
    return multiply_add(z * r,
                        polynomial(z, -0.16666666666666632, 0.0083333333333224548, -0.00019841269829816346,
                                   2.7557313688937231e-06, -2.5050756951191406e-08, 1.5896696084950071e-10),
                        r);
}

template <class T>
[[gnu::always_inline]] inline T cosine_of_rest(T r) {
  const T z = r * r;
  T q;
  if constexpr (narrow<T>)
    q = polynomial(z, 0.041666647, -0.00138873721, 2.44387837e-05);
  else
    q = polynomial(z, 0.041666666666666616, -0.0013888888888875998, 2.4801587290486125e-05, -2.7557314606828224e-07,
                   2.0875754132942918e-09, -1.1361090845626917e-11);
  return multiply_add(z * z, q, multiply_add(T(-0.5), z, T(1)));
}

// Quarter turns as an integer in the low bits.
template <class T>
[[gnu::always_inline]] inline Bits<T> counted(T quarters) {
  return std::bit_cast<Bits<T>>(quarters + rounder<T>);
}

// sin(rest + k pi / 2)
template <class T>
[[gnu::always_inline]] inline T sine_after(Bits<T> k, T rest) {
  const T s = sine_of_rest(rest), c = cosine_of_rest(rest), value = (k & 1) != 0 ? c : s;
  return std::bit_cast<T>(std::bit_cast<Bits<T>>(value) ^ ((k & 2) << (sizeof(T) * 8 - 2)));
}

template <class T>
[[gnu::always_inline]] inline T sin(T x) {
  const Turned<T> t = turned(x);
  const T y = sine_after(counted(t.quarters), t.rest);
  return x == T(0) ? x : y;
}

template <class T>
[[gnu::always_inline]] inline T cos(T x) {
  const Turned<T> t = turned(x);
  return sine_after<T>(counted(t.quarters) + 1, t.rest);
}

template <class T>
[[gnu::always_inline]] inline T tan(T x) {
  const Turned<T> t = turned(x);
  const T s = sine_of_rest(t.rest), c = cosine_of_rest(t.rest);
  const bool odd = (counted(t.quarters) & 1) != 0;
  const T y = (odd ? -c : s) / (odd ? s : c);
  return x == T(0) ? x : y;
}

// atan(x) of x in [0, 1]
template <class T>
[[gnu::always_inline]] inline T atan_of_unit(T x) {
  const T z = x * x;
  if constexpr (narrow<T>)
    return multiply_add(z * x,
                        polynomial(z, -0.333333277, 0.199996998, -0.142802155, 0.110607584, -0.0882065791, 0.0676348944,
                                   -0.0449993366, 0.0228037616, -0.00744246982, 0.00113874335),
                        x);
  else
    return multiply_add(
        z * x,
        polynomial(z, -0.33333333333333126, 0.19999999999959914, -0.14285714283013926, 0.11111111019000917,
                   -0.090909072030655, 0.076922820719063478, -0.066664216464726422, 0.058806293829477378,
                   -0.052539597560673314, 0.047237897536139439, -0.042229596067472459, 0.036717801149344607,
                   -0.030022666105612331, 0.022129258184667589, -0.014035333977440508, 0.0072911859471279051,
                   -0.0029333326018248238, 0.00084832081447645271, -0.00015582433393096254, 1.3590333349503613e-05),
        x);
}

// What pi / 2 loses by being a T.
template <class T>
inline constexpr T quarter_tail = narrow<T> ? T(-4.371138828673793e-08) : T(6.123233995736766e-17);
template <class T>
inline constexpr T quarter = T(1.57079632679489661923);

template <class T>
[[gnu::always_inline]] inline T atan(T x) {
  const T a = magnitude(x);
  const bool steep = a > T(1);
  const T inner = atan_of_unit(steep ? T(1) / a : a), outer = (quarter<T> - inner) + quarter_tail<T>;
  return with_sign_of(steep ? outer : inner, x);
}

// For finite y and x, not both zero; callers send the rest to libm.
template <class T>
[[gnu::always_inline]] inline T atan2(T y, T x) {
  const T a = magnitude(y), b = magnitude(x);
  const bool steep = a > b;
  const T inner = atan_of_unit((steep ? b : a) / (steep ? a : b));
  const T first = steep ? (quarter<T> - inner) + quarter_tail<T> : inner;
  const T second = (T(2) * quarter<T> - first) + T(2) * quarter_tail<T>;
  return with_sign_of(x < T(0) ? second : first, y);
}

// asin(x) of x in [0, 1/2], given x^2
template <class T>
[[gnu::always_inline]] inline T asin_of_half(T x, T z) {
  if constexpr (narrow<T>)
    return multiply_add(z * x, polynomial(z, 0.166667507, 0.0749534356, 0.0454662763, 0.0241946884, 0.042146311), x);
  else
    return multiply_add(
        z * x,
        polynomial(z, 0.16666666666666738, 0.074999999999751835, 0.04464285717122294, 0.030381942845426287,
                   0.02237221160981509, 0.017351665939720047, 0.013980237250722156, 0.011403269700734237,
                   0.010757739452462464, 0.0037854186758015328, 0.021527643960602669, -0.020759719365494134,
                   0.032487143004224554),
        x);
}

// asin(a) for a <= 1/2; above, asin(a) = pi / 2 - 2 asin(sqrt((1 - a) / 2)). Beyond 1: NaN, by the square root.
template <class T>
[[gnu::always_inline]] inline T asin(T x) {
  const T a = magnitude(x);
  const bool large = a > T(0.5);
  const T halved = T(0.5) * (T(1) - a), z = large ? halved : a * a;
  const T inner = asin_of_half(large ? std::sqrt(halved) : a, z);
  const T outer = (quarter<T> - T(2) * inner) + quarter_tail<T>;
  return with_sign_of(large ? outer : inner, x);
}

template <class T>
[[gnu::always_inline]] inline T acos(T x) {
  const T a = magnitude(x);
  const bool large = a > T(0.5);
  const T halved = T(0.5) * (T(1) - a), z = large ? halved : a * a;
  const T inner = asin_of_half(large ? std::sqrt(halved) : a, z);
  const T near_end = x < T(0) ? (T(2) * quarter<T> - T(2) * inner) + T(2) * quarter_tail<T> : T(2) * inner;
  const T middle = (quarter<T> - with_sign_of(inner, x)) + quarter_tail<T>;
  return large ? near_end : x != x ? x : middle;
}

}  // namespace loom::cpu::vector_math
