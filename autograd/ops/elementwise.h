// Elementwise functions: the rows of accelerators/elementwise.def, with broadcasting and PyTorch's type promotion.
#pragma once

#include <limits>
#include <optional>
#include <type_traits>

#include <loom/tensor/tensor.h>

namespace loom {

#define UNARY(name, ...) Tensor name(const Tensor& x);
#define UNARY_P(name, p_default, q_default, ...) \
  Tensor name(const Tensor& x, double p = p_default, double q = q_default);
#define STEP(name, ...) Tensor name(const Tensor& x);
#define PREDICATE(name, ...) Tensor name(const Tensor& x);
#define BINARY(name, ...) Tensor name(const Tensor& a, const Tensor& b);
#define COMPARE(name, ...) Tensor name(const Tensor& a, const Tensor& b);
#define BITWISE(name, ...) Tensor name(const Tensor& a, const Tensor& b);
#include <loom/accelerators/elementwise.def>

// A power by a number; 2, 3, 1/2 and -1 cost no more than a product.
template <class T>
  requires std::is_arithmetic_v<T>
Tensor pow(const Tensor& x, T exponent) {
  return x.pow(Tensor(exponent));
}

// condition ? a : b; condition is boolean, all three broadcast.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
Tensor masked_fill(const Tensor& x, const Tensor& mask, const Tensor& value);
Tensor lerp(const Tensor& start, const Tensor& end, const Tensor& weight);  // start + weight * (end - start)
Tensor glu(const Tensor& x, int dim = -1);                                  // a * sigmoid(b) of the two halves of x
Tensor prelu(const Tensor& x, const Tensor& weight);                        // weight [1] or [channels of dim 1]

Tensor operator-(const Tensor& x);
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator%(const Tensor& a, const Tensor& b) { return remainder(a, b); }
inline Tensor operator==(const Tensor& a, const Tensor& b) { return eq(a, b); }
inline Tensor operator!=(const Tensor& a, const Tensor& b) { return ne(a, b); }
inline Tensor operator<(const Tensor& a, const Tensor& b) { return lt(a, b); }
inline Tensor operator<=(const Tensor& a, const Tensor& b) { return le(a, b); }
inline Tensor operator>(const Tensor& a, const Tensor& b) { return gt(a, b); }
inline Tensor operator>=(const Tensor& a, const Tensor& b) { return ge(a, b); }
inline Tensor operator&(const Tensor& a, const Tensor& b) { return bitwise_and(a, b); }
inline Tensor operator|(const Tensor& a, const Tensor& b) { return bitwise_or(a, b); }
inline Tensor operator^(const Tensor& a, const Tensor& b) { return bitwise_xor(a, b); }

}  // namespace loom
