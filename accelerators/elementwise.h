// The rows of elementwise.def as data: enumerators, names and scalar functors.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <loom/accelerators/half.h>

namespace loom {

enum class Unary : uint8_t {
#define UNARY(name, ...) name,
#define UNARY_P(name, ...) name,
#define STEP(name, ...) name,
#define PREDICATE(name, ...) name,
#include <loom/accelerators/elementwise.def>
};

enum class Binary : uint8_t {
#define BINARY(name, ...) name,
#define COMPARE(name, ...) name,
#define BITWISE(name, ...) name,
#include <loom/accelerators/elementwise.def>
};

// What dtypes an elementwise op takes and gives.
enum class ElementwiseKind : uint8_t {
  real,       // floating; integral inputs become f32
  numeric,    // any dtype but, where it makes no sense, boolean
  predicate,  // any dtype in, boolean out
  bitwise,    // integral and boolean
};

const char* name_of(Unary op);
const char* name_of(Binary op);
ElementwiseKind kind_of(Unary op);
ElementwiseKind kind_of(Binary op);

namespace elementwise {

// Helpers of the table whose text would not fit a column.
template <class T>
LOOM_HOST_DEVICE T power(T base, T exponent) {
  if constexpr (std::is_integral_v<T>) {
    if constexpr (std::is_signed_v<T>)
      if (exponent < T(0)) return base == T(1) ? T(1) : base == T(-1) ? (exponent % T(2) == T(0) ? T(1) : T(-1)) : T(0);
    T result = 1;
    for (T n = exponent, square = base; n != T(0);
         n = static_cast<T>(n / T(2)), square = static_cast<T>(square * square))
      if (n % T(2) != T(0)) result = static_cast<T>(result * square);
    return result;
  } else {
    return std::pow(base, exponent);
  }
}

template <class T>
LOOM_HOST_DEVICE T logaddexp(T a, T b) {
  const T high = a > b ? a : b, low = a > b ? b : a;
  if (high == low && high - high != high - high) return high;  // both infinite, of one sign
  return high + std::log1p(std::exp(low - high));
}

// Sign of the result: the dividend's (C, torch.fmod).
template <class T>
LOOM_HOST_DEVICE T truncated_modulo(T a, T b) {
  if constexpr (std::is_integral_v<T>)
    return b == T(0) ? T(0) : static_cast<T>(a % b);
  else
    return std::fmod(a, b);
}

// Sign of the result: the divisor's (Python, torch.remainder).
template <class T>
LOOM_HOST_DEVICE T floored_modulo(T a, T b) {
  const T r = truncated_modulo(a, b);
  return r != T(0) && (r < T(0)) != (b < T(0)) ? static_cast<T>(r + b) : r;
}

// The whole number that leaves floored_modulo(a, b) (Python, torch.floor_divide): 1 // 0.1 is 9, as 0.1 is a little
// more than a tenth.
template <class T>
LOOM_HOST_DEVICE T floored_quotient(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == T(0)) return T(0);
    const T q = static_cast<T>(a / b);
    return a % b != T(0) && (a < T(0)) != (b < T(0)) ? static_cast<T>(q - T(1)) : q;
  } else {
    if (b == T(0)) return a / b;
    const T r = std::fmod(a, b);
    T q = (a - r) / b;  // whole but for rounding
    if (r != T(0) && (r < T(0)) != (b < T(0))) q -= T(1);
    return q == T(0) ? std::copysign(T(0), a / b) : std::nearbyint(q);
  }
}

// Derivatives of silu, gelu and gelu_tanh. `Math` has the exp, erf and tanh to use.
struct Libm {
  template <class T>
  static LOOM_HOST_DEVICE T exp(T x) {
    return std::exp(x);
  }
  template <class T>
  static LOOM_HOST_DEVICE T erf(T x) {
    return std::erf(x);
  }
  template <class T>
  static LOOM_HOST_DEVICE T tanh(T x) {
    return std::tanh(x);
  }
};
template <class Math = Libm, class T>
LOOM_HOST_DEVICE inline T silu_slope(T x) {
  const T s = T(1) / (T(1) + Math::exp(-x));
  return s * (T(1) + x * (T(1) - s));
}
template <class Math = Libm, class T>
LOOM_HOST_DEVICE inline T gelu_slope(T x) {  // Phi(x) + x phi(x)
  return T(0.5) * (T(1) + Math::erf(x * T(0.70710678118654752440))) +
         x * T(0.39894228040143267794) * Math::exp(T(-0.5) * x * x);
}
template <class Math = Libm, class T>
LOOM_HOST_DEVICE inline T gelu_tanh_slope(T x) {
  constexpr T k = T(0.79788456080286535588), c = T(0.044715);  // sqrt(2 / pi)
  const T t = Math::tanh(k * (x + c * x * x * x));
  return T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * (k * (T(1) + T(3) * c * x * x));
}

// Functors: UnaryFunction<Unary::exp>{}(x, p, q), BinaryFunction<Binary::add>{}(a, b); T is a compute type.
template <Unary op>
struct UnaryFunction;
template <Binary op>
struct BinaryFunction;

#define LOOM_UNARY_FUNCTION(name, result, f)                                                    \
  template <>                                                                                   \
  struct UnaryFunction<Unary::name> {                                                           \
    template <class T>                                                                          \
    LOOM_HOST_DEVICE result operator()(T x, [[maybe_unused]] T p, [[maybe_unused]] T q) const { \
      return static_cast<result>(f);                                                            \
    }                                                                                           \
  };
#define LOOM_BINARY_FUNCTION(name, result, f)            \
  template <>                                            \
  struct BinaryFunction<Binary::name> {                  \
    template <class T>                                   \
    LOOM_HOST_DEVICE result operator()(T a, T b) const { \
      return static_cast<result>(f);                     \
    }                                                    \
  };
#define UNARY(name, kind, f, ...) LOOM_UNARY_FUNCTION(name, T, (f))
#define UNARY_P(name, p_default, q_default, kind, f, ...) LOOM_UNARY_FUNCTION(name, T, (f))
#define STEP(name, f, ...) LOOM_UNARY_FUNCTION(name, T, (f))
#define PREDICATE(name, f) LOOM_UNARY_FUNCTION(name, bool, (f))
#define BINARY(name, kind, f, ...) LOOM_BINARY_FUNCTION(name, T, (f))
#define COMPARE(name, f) LOOM_BINARY_FUNCTION(name, bool, (f))
#define BITWISE(name, f) LOOM_BINARY_FUNCTION(name, T, (f))
#include <loom/accelerators/elementwise.def>
#undef LOOM_UNARY_FUNCTION
#undef LOOM_BINARY_FUNCTION

}  // namespace elementwise
}  // namespace loom
