// Functions that compilers turn into vector code: no branches, no calls, no tables. T is float or double; errors are
// one or two units in the last place, wherever an element stands. Coefficients are minimax (Remez), but for erf in
// float.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu::vector_math {

template <class T>
inline constexpr bool narrow = std::is_same_v<T, float>;
template <class T>
using Bits = std::conditional_t<narrow<T>, uint32_t, uint64_t>;
template <class T>
inline constexpr int mantissa = narrow<T> ? 23 : 52;
template <class T>
inline constexpr int bias = narrow<T> ? 127 : 1023;
// Adding and subtracting it rounds to a whole number, and leaves that in the low bits of the sum.
template <class T>
inline constexpr T rounder = narrow<T> ? T(0x1.8p23) : T(0x1.8p52);
template <class T>
inline constexpr T infinity = std::numeric_limits<T>::infinity();

// c0 + x (c1 + x (c2 + ...))
template <class T, class... Rest>
[[gnu::always_inline]] constexpr T polynomial(T x, double c0, Rest... rest) {
  if constexpr (sizeof...(rest) == 0)
    return static_cast<T>(c0);
  else
    return multiply_add(x, polynomial(x, rest...), static_cast<T>(c0));
}

template <class T>
[[gnu::always_inline]] inline T clamped(T x, double low, double high) {
  x = x < T(low) ? T(low) : x;
  return x > T(high) ? T(high) : x;
}
// The same, low < 0 < high, sooner; of NaN one of the bounds.
[[gnu::always_inline]] inline float bounded(float x, float low, float high) {
  const auto bits = std::bit_cast<int32_t>(x), most = std::bit_cast<int32_t>(high);
  const auto below = static_cast<uint32_t>(bits < most ? bits : most), least = std::bit_cast<uint32_t>(low);
  return std::bit_cast<float>(below < least ? below : least);
}
[[gnu::always_inline]] inline double bounded(double x, double low, double high) { return clamped(x, low, high); }
template <class T>
[[gnu::always_inline]] inline T magnitude(T x) {
  return std::bit_cast<T>(std::bit_cast<Bits<T>>(x) & (~Bits<T>{0} >> 1));
}
template <class T>
[[gnu::always_inline]] inline T with_sign_of(T x, T sign) {
  constexpr Bits<T> rest = ~Bits<T>{0} >> 1;
  return std::bit_cast<T>((std::bit_cast<Bits<T>>(x) & rest) | (std::bit_cast<Bits<T>>(sign) & ~rest));
}

// 2^(n - less) for n + rounder, n - less a normal number's exponent.
template <int less = 0, class T>
[[gnu::always_inline]] inline T power_of_two(T shifted) {
  return std::bit_cast<T>((std::bit_cast<Bits<T>>(shifted) + Bits<T>{bias<T> - less}) << mantissa<T>);
}

template <class T>
struct ExpParts {
  T excess, power, shifted;  // exp(x) = (1 + excess) * 2^power, shifted = power + rounder
};

template <class T>
[[gnu::always_inline]] inline ExpParts<T> exp_of_reduced(T r, T n, T shifted) {
  T q;
  const T square = r * r;
  if constexpr (narrow<T>)  // in two halves: what one step waits for is shorter
    q = multiply_add(square, multiply_add(square, T(0.00138145989), polynomial(r, 0.0416683881, 0.00836871725)),
                     polynomial(r, 0.499999934, 0.166665206));
  else
    q = polynomial(r, 0.5, 0.16666666666666663, 0.041666666666667573, 0.008333333333336088, 0.0013888888888207954,
                   0.00019841269839858443, 2.4801589197528822e-05, 2.7557299866168008e-06, 2.7555177630530338e-07,
                   2.5087079920852567e-08, 2.1710016376250539e-09);
  return {multiply_add(square, q, r), n, shifted};
}

template <class T>
[[gnu::always_inline]] inline ExpParts<T> exp_parts(T x) {
  constexpr T high = narrow<T> ? T(0.693359375) : T(0x1.62e42feep-1);  // few bits: its products with n are exact
  constexpr T low = narrow<T> ? T(-2.12194440054690583e-4) : T(1.90821492927058770e-10);
  const T shifted = multiply_add(x, T(1.44269504088896340736), rounder<T>), n = shifted - rounder<T>;
  return exp_of_reduced(multiply_add(n, -low, multiply_add(n, -high, x)), n, shifted);
}

// Of 2 x, x >= 0, where the error may grow with the result.
template <class T>
[[gnu::always_inline]] inline ExpParts<T> exp_parts_of_twice(T x) {
  if constexpr (!narrow<T>) return exp_parts(T(2) * x);
  const T shifted = multiply_add(x, T(2.88539008177792681472), rounder<T>), n = shifted - rounder<T>;
  return exp_of_reduced(multiply_add(n, T(-0.693147180559945309417), T(2) * x), n, shifted);
}

// In two steps: 2^128 and 2^-150 are no floats.
template <class T>
[[gnu::always_inline]] inline T assembled(const ExpParts<T>& e) {
  const T half = multiply_add(e.power, T(0.5), rounder<T>), rest = e.power - (half - rounder<T>);
  return (e.excess + T(1)) * power_of_two(half) * power_of_two(rest + rounder<T>);
}

// Overflows to infinity, underflows through the subnormals to 0; NaN stays NaN.
template <class T>
[[gnu::always_inline]] inline T exp(T x) {
  return assembled(exp_parts(narrow<T> ? clamped(x, -104, 89) : clamped(x, -746, 710)));
}

// Within exp_limit the result is a normal number: half the work.
template <class T>
inline constexpr double exp_limit = narrow<T> ? 87.0 : 708.0;
template <class T>
[[gnu::always_inline]] inline T exp_within(T x) {
  const ExpParts<T> e = exp_parts(x);
  return (e.excess + T(1)) * power_of_two(e.shifted);
}

// exp of numbers up to 0, for sums that begin with 1: what would be subnormal is 0. A third cheaper.
template <class T>
[[gnu::always_inline]] inline T exp_below(T x) {
  constexpr T least = narrow<T> ? T(-87) : T(-708);
  const ExpParts<T> e = exp_parts(x < least ? least : x);
  return x < least ? T(0) : (e.excess + T(1)) * power_of_two(e.shifted);
}

template <class T>
[[gnu::always_inline]] inline T exp2(T x) {
  const T z = narrow<T> ? clamped(x, -151, 129) : clamped(x, -1076, 1025);
  const T shifted = z + rounder<T>, n = shifted - rounder<T>;
  return assembled(exp_of_reduced((z - n) * T(0.693147180559945309417), n, shifted));
}

template <class T>
[[gnu::always_inline]] inline T expm1(T x) {
  const ExpParts<T> e = exp_parts(narrow<T> ? clamped(x, -30, 89) : clamped(x, -50, 710));
  const T half = multiply_add(e.power, T(0.5), rounder<T>), rest = e.power - (half - rounder<T>);
  const T first = power_of_two(half), second = power_of_two(rest + rounder<T>), unit = power_of_two(rounder<T> - rest);
  const T result = multiply_add(e.excess, first, first - unit) * second;
  return x == T(0) ? x : result;
}

template <class T>
struct LogParts {
  T exponent, fraction;  // x = (1 + fraction) * 2^exponent, 1 + fraction in [sqrt(1/2), sqrt(2))
};

// Of normal positive x * 2^shift.
template <class T>
[[gnu::always_inline]] inline LogParts<T> log_parts(T x, T shift = 0) {
  constexpr Bits<T> one = std::bit_cast<Bits<T>>(T(1)), root = std::bit_cast<Bits<T>>(T(0.70710678118654752440));
  constexpr T whole = narrow<T> ? T(0x1p23) : T(0x1p52);
  const Bits<T> bits = std::bit_cast<Bits<T>>(x) + (one - root);
  const T exponent = std::bit_cast<T>((bits >> mantissa<T>) | std::bit_cast<Bits<T>>(whole)) - (whole + T(bias<T>));
  const T m = std::bit_cast<T>((bits & ((Bits<T>{1} << mantissa<T>)-1)) + root);
  return {exponent - shift, m - T(1)};
}

// log(1 + f) + exponent * (unit_high + unit_low)
template <class T>
[[gnu::always_inline]] inline T log_of_parts(const LogParts<T>& p, T unit_high, T unit_low) {
  const T f = p.fraction, square = f * f;
  if constexpr (narrow<T>) {
    const T q = polynomial(f, 0.333333119, -0.249999864, 0.20002146, -0.166692166, 0.142200231, -0.1238555, 0.118651198,
                           -0.11780707, 0.0692107995);
    const T rest = multiply_add(T(-0.5), square, multiply_add(square * f, q, p.exponent * unit_low));
    return multiply_add(p.exponent, unit_high, f + rest);
  } else {
    const T s = f / (f + T(2)), z = s * s, half = T(0.5) * square;
    const T r = z * polynomial(z, 0.66666666666667307, 0.39999999999433467, 0.2857142873901547, 0.22222198862124945,
                               0.18183551535240788, 0.15314332651384249, 0.14793499780243685);
    const T inside = half - multiply_add(s, half + r, p.exponent * unit_low);
    return multiply_add(p.exponent, unit_high, f - inside);
  }
}

template <class T>
inline constexpr T ln2_high = narrow<T> ? T(0.693359375) : T(0x1.62e42feep-1);
template <class T>
inline constexpr T ln2_low = narrow<T> ? T(-2.12194440054690583e-4) : T(1.90821492927058770e-10);

// finish(parts of x), and what logarithms give for numbers that have no parts.
template <class T, class Finish>
[[gnu::always_inline]] inline T logarithm(T x, const Finish& finish) {
  const bool tiny = x < std::numeric_limits<T>::min();
  const T result = finish(log_parts(tiny ? x * T(Bits<T>{1} << mantissa<T>) : x, tiny ? T(mantissa<T>) : T(0)));
  const T special = x == T(0) ? -infinity<T> : x == infinity<T> ? infinity<T> : std::numeric_limits<T>::quiet_NaN();
  return x > T(0) && x < infinity<T> ? result : special;
}

template <class T>
[[gnu::always_inline]] inline T log(T x) {
  return logarithm(x, [](const LogParts<T>& p) { return log_of_parts(p, ln2_high<T>, ln2_low<T>); });
}
template <class T>
[[gnu::always_inline]] inline T log2(T x) {
  return logarithm(x, [](const LogParts<T>& p) {
    return multiply_add(log_of_parts<T>({T(0), p.fraction}, 0, 0), T(1.44269504088896340736), p.exponent);
  });
}
template <class T>
[[gnu::always_inline]] inline T log10(T x) {
  constexpr T high = narrow<T> ? T(0.301025390625) : T(0x1.34413509f6p-2);
  constexpr T tail = narrow<T> ? T(4.605038981195213739e-6) : T(3.694239077158931e-13);
  return logarithm(x, [](const LogParts<T>& p) {
    const T rest =
        multiply_add(log_of_parts<T>({T(0), p.fraction}, 0, 0), T(0.434294481903251827651), p.exponent * tail);
    return multiply_add(p.exponent, high, rest);
  });
}

// What rounding 1 + x lost is added back.
template <class T>
[[gnu::always_inline]] inline T log1p(T x) {
  const T u = T(1) + x, y = log(u), corrected = y + (x - (u - T(1))) / u;
  const T result = y - y == T(0) ? corrected : y;
  return x == T(0) ? x : result;
}

// expm1(2x) / (expm1(2x) + 2), which keeps all digits near 0.
template <class T>
[[gnu::always_inline]] inline T tanh(T x) {
  const ExpParts<T> e = exp_parts_of_twice(bounded(magnitude(x), T(-1), narrow<T> ? T(9.1) : T(20)));
  const T scale = power_of_two(e.shifted), t = multiply_add(e.excess, scale, scale - T(1));
  const T result = with_sign_of(t / (t + T(2)), x);
  return x == x ? result : x;
}

// Of floats up to 40; underflows through the subnormals to 0.
[[gnu::always_inline]] inline float exp_up_to_40(float x) {
  const ExpParts<float> e = exp_parts(x < -104.0f ? -104.0f : x);
  return (e.excess + 1.0f) * power_of_two<-64>(e.shifted) * 0x1p-64f;
}

// log(1 + exp(x)), from the side on which exp does not overflow. In double, NaN comes through the correction.
template <class T>
[[gnu::always_inline]] inline T softplus(T x) {
  const T above = x < T(0) ? T(0) : x;
  if constexpr (narrow<T>) {
    const float z = exp_up_to_40(-magnitude(x));
    const float q = polynomial(z, 1, -0.499999315, 0.333304644, -0.249580204, 0.196921229, -0.153449923, 0.106614254,
                               -0.0574614108, 0.0200892109, -0.00329130725);  // log(1 + z) / z
    return multiply_add(z, q, above);
  } else {
    const T z = exp(-magnitude(x)), u = T(1) + z;
    const T log_u = log_of_parts(log_parts(u), ln2_high<T>, ln2_low<T>);
    return above + (log_u + (z - (u - T(1))) / u);
  }
}

// log(1 + exp(beta x)) / beta, and x where that is nearly x. What is divided is computed for all x: no branches.
template <class T>
[[gnu::always_inline]] inline T softplus(T x, T beta, T threshold) {
  const T t = x * beta, soft = softplus(t) / beta;
  return t > threshold ? x : soft;
}

// x tanh(softplus(x)): tanh(log(1 + e)) is a quotient.
template <class T>
[[gnu::always_inline]] inline T mish(T x) {
  const T limited = x > T(40) ? T(40) : x;
  T e;
  if constexpr (narrow<T>)
    e = exp_up_to_40(limited);
  else
    e = exp(limited);
  const T w = e * (e + T(2));
  return x * (w / (w + T(2)));
}

// (1 + exp(-x)) / 2: halved, 2^128 is a float, so that one power of two will do; infinite where exp of it would be. Of
// NaN any number.
template <class T>
[[gnu::always_inline]] inline T half_logistic(T x) {
  const ExpParts<T> e = exp_parts(narrow<T> ? bounded(-x, T(-87), T(89.2)) : bounded(-x, T(-708), T(710.3)));
  const T half = power_of_two<1>(e.shifted);
  return multiply_add(e.excess + T(1), half, T(0.5));
}
template <class T>
[[gnu::always_inline]] inline T sigmoid(T x) {
  const T result = T(0.5) / half_logistic(x);
  return x == x ? result : x;
}
template <class T>
[[gnu::always_inline]] inline T silu(T x) {
  return T(0.5) * x / half_logistic(x);
}

}  // namespace loom::cpu::vector_math
