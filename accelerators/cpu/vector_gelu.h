// SPDX-License-Identifier: Apache-2.0
// GELU, its slope and that of its approximation by tanh, as quotients of polynomials: all are made of 1/2 and an odd
// function that reaches 1/2, and no exponential is needed for what is wanted of it, to 2e-7. Coefficients are minimax.
#pragma once

#include <loom/accelerators/cpu/vector_math.h>

namespace loom::cpu::vector_math {

// x Phi(x)
[[gnu::always_inline]] inline float gelu(float x) {
  const float a = magnitude(x), z = x * x;
  const float p =
      polynomial(z, 0.398942262, 0.0329356492, 0.00462798495, 0.000160333177, 6.37906032e-06, 2.40504612e-08);
  const float q = polynomial(z, 1, 0.24922365, 0.0281387456, 0.00183656393, 7.13519403e-05, 1.2371728e-06);
  const float above = a > 5.3f ? 0.5f : a * (p / q);  // Phi(a) - 1/2
  return with_sign_of(multiply_add(a, above, 0.5f * x), x);
}

// Phi(x) + x phi(x); NaN of an infinity, as the formula gives.
[[gnu::always_inline]] inline float gelu_slope(float x) {
  const float a = magnitude(x), z = x * x;
  const float p = polynomial(z, 0.797884881, -0.0394791104, 0.0144687602, -0.000115556752, 3.35242767e-05,
                             -4.47429933e-08, 2.24353003e-09, -1.23438638e-11);
  const float q = polynomial(z, 1, 0.283857077, 0.0377444923, 0.00306157046, 0.000158238588, 6.19040793e-06);
  return 0.5f + with_sign_of(a > 6.2f ? 0.5f + (a - a) : a * (p / q), x);
}

// The derivative of x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
[[gnu::always_inline]] inline float gelu_tanh_slope(float x) {
  const float a = magnitude(x), z = x * x;
  const float p = polynomial(z, 0.797884226, 0.0119299488, 0.0100267101, 0.00075396779, 1.03938237e-05, 2.59629087e-06,
                             1.71589587e-08);
  const float q =
      polynomial(z, 1, 0.349931359, 0.0530833863, 0.00433298247, 0.000285835558, 1.32085652e-05, 7.21708318e-07);
  return 0.5f + with_sign_of(a > 5.6f ? 0.5f + (a - a) : a * (p / q), x);
}

}  // namespace loom::cpu::vector_math
