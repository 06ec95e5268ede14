// SPDX-License-Identifier: Apache-2.0
// The transcendental functions in vectors against libm in long double, in units of the last place.
#include <cmath>
#include <limits>
#include <numbers>

#include <doctest/doctest.h>

#include "array.h"

using namespace loom;
using namespace loom::testing;

namespace {

using Exact = long double (*)(long double x);
struct Function {
  Unary op;
  double low, high;  // inputs spread evenly between
  double most;       // and by magnitude up to here, of both signs where low < 0
  double ulps32, ulps64;
  Exact exact;
};

long double softplus(long double x) { return (x < 0 ? 0 : x) + std::log1p(std::exp(-std::abs(x))); }

#define EXACT(name) [](long double x) { return std::name(x); }
const Function functions[] = {
    {Unary::exp, -110, 95, 80, 1.2, 1.2, EXACT(exp)},
    {Unary::exp2, -155, 130, 100, 1.2, 1.2, EXACT(exp2)},
    {Unary::expm1, -20, 95, 80, 2, 2, EXACT(expm1)},
    {Unary::log, 0, 3, 1e38, 1, 1, EXACT(log)},
    {Unary::log2, 0, 3, 1e38, 2, 2, EXACT(log2)},
    {Unary::log10, 0, 3, 1e38, 2.2, 2.2, EXACT(log10)},
    {Unary::log1p, -0.99, 3, 0.9, 2, 2, EXACT(log1p)},
    {Unary::sin, -12, 12, 1e30, 2, 3, EXACT(sin)},
    {Unary::cos, -12, 12, 1e30, 2, 3, EXACT(cos)},
    {Unary::tan, -12, 12, 1e30, 4, 5, EXACT(tan)},
    {Unary::asin, -1, 1, 1, 2.5, 2.5, EXACT(asin)},
    {Unary::acos, -1, 1, 1, 2, 2, EXACT(acos)},
    {Unary::atan, -3, 3, 1e30, 2, 2, EXACT(atan)},
    {Unary::sinh, -95, 95, 80, 3, 3, EXACT(sinh)},
    {Unary::cosh, -95, 95, 80, 2, 2, EXACT(cosh)},
    {Unary::tanh, -12, 12, 1e30, 3, 3, EXACT(tanh)},
    {Unary::asinh, -5, 5, 1e38, 2.5, 2.5, EXACT(asinh)},
    {Unary::acosh, 1, 5, 1, 3.5, 3.5, EXACT(acosh)},
    {Unary::atanh, -1, 1, 1, 3, 3, EXACT(atanh)},
    {Unary::erf, -5, 5, 1e30, 9, 2.5, EXACT(erf)},
    {Unary::erfc, -4, 27, 1, 1, 6, EXACT(erfc)},
    {Unary::exp, -86, 86, 80, 1.2, 1.2, EXACT(exp)},  // all of it where no result is subnormal
    {Unary::sigmoid, -88, 95, 80, 3.2, 2.5, [](long double x) { return 1 / (1 + std::exp(-x)); }},
    {Unary::silu, -88, 95, 80, 3.2, 3, [](long double x) { return x / (1 + std::exp(-x)); }},
    {Unary::logsigmoid, -110, 110, 80, 2.2, 3, [](long double x) { return -softplus(-x); }},
    {Unary::mish, -80, 95, 80, 4, 6, [](long double x) { return x * std::tanh(softplus(x)); }},
};
#undef EXACT

int smallest_exponent(DType t) { return t == f32 ? -125 : -1021; }
int digits(DType t) { return t == f32 ? 24 : 53; }

// One unit in the last place of numbers like x, the same for all subnormals.
long double unit_of(DType t, long double x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(1.0L, std::max(exponent, smallest_exponent(t)) - digits(t));
}

std::vector<double> inputs_of(const Function& f, DType t) {
  const auto number = [&](double x) { return t == f32 ? static_cast<double>(static_cast<float>(x)) : x; };
  std::vector<double> inputs;
  for (int i = 0; i <= 4000; ++i) inputs.push_back(number(f.low + (f.high - f.low) * i / 4000));
  const double least = std::log(t == f32 ? 1e-44 : 1e-310);  // from among the subnormals
  for (int i = 0; i <= 4000 && f.low <= 0; ++i) {
    const double x = number(std::exp(least + (std::log(f.most) - least) * i / 4000));
    inputs.push_back(x);
    if (f.low < 0 && -x >= f.low - 1e30 * (f.most > 100)) inputs.push_back(-x);
  }
  return inputs;
}

bool agrees(DType t, double got, long double expected, double ulps) {
  if (std::isnan(expected)) return std::isnan(got);
  const double nearest = t == f32 ? static_cast<double>(static_cast<float>(expected)) : static_cast<double>(expected);
  if (std::isinf(nearest) || std::isinf(got)) {
    const long double most = t == f32 ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
    return got == nearest || std::abs(expected) > most * (1 - 1e-6L);
  }
  return std::abs(got - expected) <= ulps * unit_of(t, expected);
}

// Powers in y, to a unit in the last place; power(i): what a[i] is raised to.
template <class Power>
void check_powers(const Array& y, const Array& a, const Power& power) {
  for (int64_t i = 0; i < a.numel(); ++i) {
    const long double expected = std::pow(static_cast<long double>(a[i]), static_cast<long double>(power(i)));
    REQUIRE_MESSAGE(agrees(f32, y[i], expected, 1), a[i], " to ", power(i), ": ", y[i], ", expected ",
                    static_cast<double>(expected));
  }
}

}  // namespace

TEST_CASE("vector math: units in the last place, over the whole range") {
  for (const Function& f : functions)
    for (const DType t : {f32, f64}) {
      const std::vector<double> inputs = inputs_of(f, t);
      const List x(t, inputs);
      Array y(t, {x.numel()});
      cpu().unary(f.op, y, x, 0, 0);
      for (int64_t i = 0; i < x.numel(); ++i) {
        const long double expected = f.exact(x[i]);
        REQUIRE_MESSAGE(agrees(t, y[i], expected, t == f32 ? f.ulps32 : f.ulps64), name_of(f.op), " ", to_string(t),
                        " of ", x[i], ": ", y[i], ", expected ", static_cast<double>(expected));
      }
    }
}

TEST_CASE("vector math: erfc of f32 among its smallest results and everywhere else") {
  const int64_t n = 200000;
  const Array x(f32, {n}, [](int64_t i) { return static_cast<double>(i < 100000 ? i : i - 200000) * 1.02e-4; });
  Array y(f32, {n});
  cpu().unary(Unary::erfc, y, x, 0, 0);
  for (int64_t i = 0; i < n; ++i) {
    const long double expected = std::erfc(static_cast<long double>(x[i]));
    REQUIRE_MESSAGE(agrees(f32, y[i], expected, 1), "erfc of ", x[i], ": ", y[i], ", expected ",
                    static_cast<double>(expected));
  }
}

TEST_CASE("vector math: softplus with a slope and a threshold") {
  for (const DType t : {f32, f64})
    for (const double beta : {1.0, 0.3, -2.0}) {
      const Array x(t, {2001}, [](int64_t i) { return 0.1 * static_cast<double>(i - 1000); });
      Array y(t, {2001});
      cpu().unary(Unary::softplus, y, x, beta, 20);
      for (int64_t i = 0; i < x.numel(); ++i) {
        const long double slope = t == f32 ? static_cast<float>(beta) : beta, z = slope * x[i];
        const long double expected = z > 20 ? x[i] : softplus(z) / slope;
        REQUIRE_MESSAGE(std::abs(y[i] - expected) <= std::abs(expected) * (t == f32 ? 3e-6L : 1e-14L) + 1e-43L,
                        "softplus of ", x[i], " times ", beta, ": ", y[i]);
      }
    }
}

TEST_CASE("vector math: zeros, infinities and NaN as libm has them") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const Function& f : functions)
    for (const DType t : {f32, f64}) {
      const List x(t, {0.0, -0.0, inf, -inf, nan, 1.0, -1.0});
      Array y(t, {x.numel()});
      cpu().unary(f.op, y, x, 0, 0);
      for (int64_t i = 0; i < x.numel(); ++i) {
        const long double expected = f.exact(x[i]);
        CHECK_MESSAGE(agrees(t, y[i], expected, 4), name_of(f.op), " ", to_string(t), " of ", x[i], ": ", y[i]);
        const bool keeps_sign = expected == 0 && x[i] == 0;
        if (keeps_sign) CHECK_MESSAGE(std::signbit(y[i]) == std::signbit(expected), name_of(f.op), " of ", x[i]);
      }
    }
}

TEST_CASE("vector math: gelu of both kinds and their slopes, at the ends of the range too") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const long double k = std::sqrt(2 / std::numbers::pi_v<long double>), c = 0.044715L;
  const auto inner = [&](long double x) { return std::tanh(k * (x + c * x * x * x)); };
  const auto normal = [](long double x) { return std::erfc(-x / std::sqrt(2.0L)) / 2; };
  std::vector<double> inputs = {0.0, -0.0, 1e-40, -1e-40, 1e30, -1e30, 1e4, inf, nan};
  for (int i = 0; i <= 40000; ++i) inputs.push_back(static_cast<double>(static_cast<float>(-10 + 20.0 * i / 40000)));
  const List x(f32, inputs), ones(f32, std::vector<double>(inputs.size(), 1.0));
  Array y(f32, {x.numel()}), y_tanh(f32, {x.numel()}), slope(f32, {x.numel()}), slope_tanh(f32, {x.numel()});
  cpu().unary(Unary::gelu, y, x, 0, 0);
  cpu().unary(Unary::gelu_tanh, y_tanh, x, 0, 0);
  cpu().binary(Binary::gelu_backward, slope, ones, x);
  cpu().binary(Binary::gelu_tanh_backward, slope_tanh, ones, x);
  const auto near = [&](const char* what, double at, double got, long double expected, double scale) {
    const bool right = std::isnan(at) || std::isinf(at) ? got == at || (std::isnan(at) && std::isnan(got))
                                                        : std::abs(got - expected) <= 3e-7 * scale;
    REQUIRE_MESSAGE(right, what, " of ", at, ": ", got, ", expected ", static_cast<double>(expected));
  };
  for (int64_t i = 0; i < x.numel(); ++i) {
    const long double v = x[i], t = inner(v);
    const double scale = std::abs(v) < 10 ? std::abs(x[i]) + 1e-30 : std::abs(x[i]) * 0.2;
    near("gelu", x[i], y[i], v * normal(v), scale);
    near("gelu_tanh", x[i], y_tanh[i], v * (1 + t) / 2, scale);
    if (std::isinf(x[i])) {
      CHECK(std::isnan(slope[i]));
      CHECK(std::isnan(slope_tanh[i]));
      continue;
    }
    const long double bell =
        std::abs(v) > 100 ? 0 : std::exp(-v * v / 2) / std::sqrt(2 * std::numbers::pi_v<long double>);
    const long double steep = std::abs(t) == 1 ? 0 : v * (1 - t * t) * k * (1 + 3 * c * v * v);
    near("gelu_backward", x[i], slope[i], normal(v) + v * bell, 1);
    near("gelu_tanh_backward", x[i], slope_tanh[i], (1 + t + steep) / 2, 1);
  }
}

TEST_CASE("vector math: atan2, pow, hypot and the remainders, corner cases among ordinary numbers") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> numbers = {0.0, -0.0, 1,    -1,    2,     -2,  0.5,  -2.5, 3,
                                       7,   -7,   1e30, -1e30, 1e-30, inf, -inf, nan};
  const std::pair<Binary, long double (*)(long double, long double)> rows[] = {
      {Binary::atan2, [](long double a, long double b) { return std::atan2(a, b); }},
      {Binary::pow, [](long double a, long double b) { return std::pow(a, b); }},
      {Binary::hypot, [](long double a, long double b) { return std::hypot(a, b); }},
      {Binary::fmod, [](long double a, long double b) { return std::fmod(a, b); }},
      {Binary::remainder, [](long double a, long double b) {
         const long double r = std::fmod(a, b);
         return r != 0 && (r < 0) != (b < 0) ? r + b : r;
       }}};
  std::vector<double> left, right;
  for (const double a : numbers)
    for (const double b : numbers) {
      left.push_back(a);
      right.push_back(b);
    }
  for (const auto& [op, exact] : rows)
    for (const DType t : {f32, f64}) {
      const List a(t, left), b(t, right);
      Array y(t, {a.numel()});
      cpu().binary(op, y, a, b);
      for (int64_t i = 0; i < a.numel(); ++i)
        CHECK_MESSAGE(agrees(t, y[i], exact(a[i], b[i]), 4), name_of(op), " ", to_string(t), " of ", a[i], ", ", b[i],
                      ": ", y[i], ", expected ", static_cast<double>(exact(a[i], b[i])));
    }
}

TEST_CASE("vector math: powers of f32, within a unit in the last place, whole ones exact") {
  std::vector<double> base, exponent;
  for (int i = 0; i < 200; ++i)
    for (int j = 0; j < 100; ++j) {
      const double magnitude = std::exp(-90 + 0.9 * i), y = j < 20 ? j - 10 : -8 + 0.171 * j;
      base.push_back(static_cast<double>(static_cast<float>(j % 3 == 0 ? -magnitude : magnitude)));
      exponent.push_back(static_cast<double>(static_cast<float>(y)));
    }
  const List a(f32, base), b(f32, exponent);
  Array y(f32, {a.numel()});
  cpu().binary(Binary::pow, y, a, b);
  check_powers(y, a, [&](int64_t i) { return b[i]; });
  const List whole(f32, {2, 3, -3, 10, -7, 1}), of(f32, {24, 15, 15, 10, 8, 1e30});
  Array exact(f32, {6});
  cpu().binary(Binary::pow, exact, whole, of);
  CHECK(exact.values() == std::vector<double>{16777216, 14348907, -14348907, 1e10, 5764801, 1});
}

// A base near 1 and a large exponent: all digits of the logarithm count.
TEST_CASE("vector math: powers of f32 up to the ends of the range, one by one and with one exponent") {
  std::vector<double> base, exponent;
  for (int i = 0; i < 300; ++i)
    for (int j = 0; j < 60; ++j) {
      const double size = j < 20 ? std::exp2(-148.5 + 0.92 * i) : std::exp(std::pow((i - 149.5) / 150, 3) * 0.7);
      const auto x = static_cast<double>(static_cast<float>(size));
      base.push_back(x);
      exponent.push_back(static_cast<double>(static_cast<float>((-150 + 5.01 * j) / std::log2(x))));
    }
  const List a(f32, base), b(f32, exponent);
  Array y(f32, {a.numel()});
  cpu().binary(Binary::pow, y, a, b);
  check_powers(y, a, [&](int64_t i) { return b[i]; });
  for (const double p : {0.0, 1.5, -2.5, 7.0, -4.0, 5000.0}) {
    cpu().unary(Unary::pow_scalar, y, a, p, 0);
    check_powers(y, a, [p](int64_t) { return p; });
  }
}

TEST_CASE("vector math: a power does not depend on its neighbours") {
  const double inf = std::numeric_limits<double>::infinity();
  const int64_t n = 1000;
  const auto base = [](int64_t i) { return std::exp(0.02 * static_cast<double>(i - 500)); };
  const auto power = [](int64_t i) { return -3 + 0.0061 * static_cast<double>(i); };
  const Array a(f32, {n}, base), b(f32, {n}, power);
  Array expected(f32, {n});
  cpu().binary(Binary::pow, expected, a, b);
  for (const auto& [x, p] :
       {std::pair(-2.0, 3.0), {0.0, -1.0}, {1e-40, 0.7}, {inf, 0.5}, {2.0, 126.5}, {2.0, 1e6}, {2.0, inf}}) {
    const Array odd(f32, {n}, [&](int64_t i) { return i % 100 == 7 ? x : base(i); });
    const Array powers(f32, {n}, [&](int64_t i) { return i % 100 == 7 ? p : power(i); });
    Array y(f32, {n});
    cpu().binary(Binary::pow, y, odd, powers);
    for (int64_t i = 0; i < n; ++i)
      if (i % 100 != 7) REQUIRE(y[i] == expected[i]);
  }
}

TEST_CASE("an integer's magnitude wraps where it has none") {
  const List x(i32, {-2147483648.0, -3, 3});
  Array y(i32, {3});
  cpu().unary(Unary::abs, y, x, 0, 0);
  CHECK(y.values() == std::vector<double>{-2147483648.0, 3, 3});
}
