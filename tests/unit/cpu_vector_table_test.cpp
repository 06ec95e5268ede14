// SPDX-License-Identifier: Apache-2.0
// Functions whose common cases take a quicker way than the others: both give what they give elsewhere.
#include <array>
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include "array.h"

using namespace loom;
using namespace loom::testing;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

std::vector<double> applied(Unary op, const std::vector<double>& x) {
  const List from(f32, x);
  Array y(f32, {from.numel()});
  cpu().unary(op, y, from, 2.5, 0);
  return y.values();
}
std::vector<double> powers(const std::vector<double>& x, const std::vector<double>& exponent) {
  const List a(f32, x), b(f32, exponent);
  Array y(f32, {a.numel()});
  cpu().binary(Binary::pow, y, a, b);
  return y.values();
}

// Within a unit in the last place.
bool near(double got, long double expected) {
  const auto f = static_cast<float>(expected);
  const double step = std::abs(static_cast<double>(std::nextafter(f, HUGE_VALF)) - f);
  return got == f || std::abs(got - expected) <= step;
}

}  // namespace

TEST_CASE("quick functions: a result depends neither on its neighbours nor on its place") {
  std::vector<double> x(200);
  for (size_t i = 0; i < x.size(); ++i) x[i] = (i % 2 == 0 ? 0.02 : -0.03) * static_cast<double>(i);
  const double odd[] = {4.03, 9.0, inf, std::nan(""), -inf, 0.0, 1e-41};
  for (const Unary op : {Unary::erfc, Unary::gelu, Unary::gelu_tanh, Unary::pow_scalar, Unary::exp, Unary::tanh,
                         Unary::sigmoid, Unary::silu}) {
    const std::vector<double> expected = applied(op, x);
    for (size_t n = 1; n < 40; ++n) {
      std::vector<double> some(x.begin() + static_cast<long>(n), x.begin() + static_cast<long>(2 * n));
      some[n / 2] = odd[n % 7];
      const std::vector<double> y = applied(op, some);
      for (size_t i = 0; i < n; ++i)
        if (i != n / 2) REQUIRE_MESSAGE(same(y[i], expected[n + i]), name_of(op), " of ", some[i]);
      CHECK(same(y[n / 2], applied(op, {odd[n % 7]})[0]));
    }
  }
}

TEST_CASE("quick functions: powers on both sides of where the tables end, of bases on both sides of 1 and of pieces") {
  std::vector<double> x, exponent;
  for (int i = -160; i < 160; ++i)
    for (int j = -2; j <= 2; ++j) {
      const auto base = static_cast<float>(1 + i / 256.0);  // pieces begin at such numbers
      x.push_back(j < 0 ? std::nextafter(base, 0.0f) : base);
      exponent.push_back(j % 2 == 0 ? 31.99 + 0.01 * j : -32.5 * j);
    }
  const std::vector<double> y = powers(x, exponent);
  for (size_t i = 0; i < x.size(); ++i) {
    const long double expected = std::pow(static_cast<long double>(x[i]), static_cast<float>(exponent[i]));
    REQUIRE_MESSAGE(near(y[i], expected), x[i], " to ", exponent[i], ": ", y[i]);
  }
}

TEST_CASE("quick functions: powers of odd numbers beside ordinary ones") {
  for (const auto& [x, exponent, expected] : {std::array{-2.0, 3.0, -8.0},
                                              {-2.0, 0.5, std::nan("")},
                                              {0.0, -1.0, inf},
                                              {-0.0, -1.0, -inf},
                                              {0.0, 0.0, 1.0},
                                              {inf, -2.0, 0.0},
                                              {-inf, 3.0, -inf},
                                              {1.0, inf, 1.0},
                                              {-1.0, inf, 1.0},
                                              {0.5, -inf, inf},
                                              {2.0, 1e30, inf},
                                              {2.0, -160.0, 0.0},
                                              {2.0, -149.0, 0x1p-149},
                                              {0x1p-149, 0.5, std::sqrt(0x1p-149)},
                                              {2.0, 128.0, inf},
                                              {1.0, std::nan(""), 1.0},
                                              {std::nan(""), 0.0, 1.0},
                                              {0x1p-140, -1.0, inf},
                                              {-0x1p-148, 2.0, 0.0}}) {
    std::vector<double> bases(40, 1.25), exponents(40, 2.0);
    bases[17] = x;
    exponents[17] = exponent;
    const std::vector<double> y = powers(bases, exponents);
    for (size_t i = 0; i < y.size(); ++i)
      CHECK_MESSAGE(same(y[i], i == 17 ? static_cast<double>(static_cast<float>(expected)) : 1.5625), bases[i], " to ",
                    exponents[i], ": ", y[i]);
  }
}
