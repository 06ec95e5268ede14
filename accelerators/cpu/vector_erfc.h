// SPDX-License-Identifier: Apache-2.0
// erfc of floats without a double, to one unit in the last place: exp(-x^2) / (c + d x) * (1 + h(x)), each factor with
// what rounding it lost. Needs fused multiply-add, whose products are exact; without it erfc() is computed in double.
#pragma once

#include <loom/accelerators/cpu/vector_special.h>

namespace loom::cpu::vector_math {

struct ErfcTail {
  float inverse, error, change;  // exp(a^2) erfc(a) = inverse (1 + error) (1 + change)
};

// Of a in [0, 10.1]; `change` is a polynomial in 1 / (a + 9/4). One division for both quotients.
[[gnu::always_inline]] inline ErfcTail erfc_tail(float a) {
  constexpr float at_0 = 1.109375f, slope = 1.42138672f, shift = 2.25f;
  const float below = multiply_add(a, slope, at_0), below_low = multiply_add(a, slope, at_0 - below);
  const float over = a + shift, over_low = a - (over - shift);
  const float both = 1.0f / (over * below), inverse = both * over, other = both * below;
  const float other_error = multiply_add(-other, over_low, multiply_add(-other, over, 1.0f));
  const float v = multiply_add(other, 5.50646114f, -1.44731605f), z = v * v;
  // how much of an error in v is one in the result
  const float growth = polynomial(v, 0.283, -0.143, -0.416);
  const float first =
      multiply_add(z, polynomial(v, -0.0251638349, -0.0012033988), polynomial(v, -0.0303520281, -0.0627494827));
  const float second = multiply_add(z, polynomial(v, -0.00018234743, -6.92044159e-06, 1.5620e-05),
                                    polynomial(v, 0.00189405493, 0.000171807624));
  const float change =
      multiply_add(v, multiply_add(v, multiply_add(z * z, second, first), 0.188505262f), 0.0384462699f);
  const float error = multiply_add(-inverse, below_low, multiply_add(-inverse, below, 1.0f));
  return {inverse, multiply_add(growth, other_error, error), change};
}

// From 10.1 on the result is no float but 0. Scaled by 2^64, so that it is rounded once where it is subnormal.
[[gnu::always_inline]] inline float erfc_in_float(float x) {
  if constexpr (!has_fma) return erfc(x);
  const float size = magnitude(x), a = size > 10.1f ? 10.1f : size, s = a * a, s_low = multiply_add(a, a, -s);
  const ErfcTail tail = erfc_tail(a);
  const float shifted = multiply_add(s, -1.44269504088896340736f, rounder<float>), n = shifted - rounder<float>;
  const float r = multiply_add(n, -ln2_high<float>, -s), rest = multiply_add(n, -ln2_low<float>, -s_low);
  const float u = r + rest, u_low = (r - u) + rest, square = u * u;  // exp(-a^2) = exp(u + u_low) 2^n
  const float b = 1.0f + u, b_low = multiply_add(b, u_low, (1.0f - b) + u);
  const float q = multiply_add(square, polynomial(u, 0.0083335638, 0.00139354507, 0.000197461195),
                               polynomial(u, 0.166666657, 0.0416664593));
  const float w = multiply_add(square * u, q, multiply_add(0.5f, square, b_low));  // exp(u + u_low) = b + w
  const float more = multiply_add(b + w, tail.change, w), sum = b + more;
  const float sum_low = multiply_add(sum, tail.error, (b - sum) + more);
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + 64) << mantissa<float>;
  const auto scaled = std::bit_cast<float>(std::bit_cast<uint32_t>(tail.inverse) + exponent);
  const float y = multiply_add(sum, scaled, sum_low * scaled) * 0x1p-64f;
  return x < 0.0f ? 2.0f - y : y;
}

}  // namespace loom::cpu::vector_math
