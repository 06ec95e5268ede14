#include <doctest/doctest.h>

#include "array.h"

using namespace loom;
using namespace loom::testing;

namespace {

struct UnaryRow {
  Unary op;
  double p, q, low, high;
  double (*f)(double x, double p, double q);
};

// Every row of the table with its formula in double, and the interval that its tests draw from.
const std::vector<UnaryRow> unary_rows = {
#define ROW(name, p, q, low, high) \
  {Unary::name,                    \
   p,                              \
   q,                              \
   low,                            \
   high,                           \
   [](double x, double a, double b) { return double(elementwise::UnaryFunction<Unary::name>{}(x, a, b)); }},
#define UNARY(name, kind, f, derivative, keeps, low, high, cast) ROW(name, 0, 0, low, high)
#define UNARY_P(name, p, q, kind, f, derivative, keeps, low, high, cast) ROW(name, p, q, low, high)
#define STEP(name, f, low, high) ROW(name, 0, 0, low, high)
#define PREDICATE(name, f) ROW(name, 0, 0, -2, 2)
#include <loom/accelerators/elementwise.def>
};

struct BinaryRow {
  Binary op;
  double low, high;
  double (*f)(double a, double b);
};

const std::vector<BinaryRow> binary_rows = {
#define ROW2(name, low, high) \
  {Binary::name, low, high,   \
   [](double a, double b) { return double(elementwise::BinaryFunction<Binary::name>{}(a, b)); }},
#define BINARY(name, kind, f, da, db, keeps, low, high, cast) ROW2(name, low, high)
#define COMPARE(name, f) ROW2(name, -2, 2)
#include <loom/accelerators/elementwise.def>
};

// Numbers spread over [low, high], on a grid of quarters for low precision, where steps and comparisons are exact.
double spread(int64_t i, double low, double high) {
  return low + (high - low) * static_cast<double>((i * 37 + 5) % 64) / 64;
}

DType result_of(ElementwiseKind kind, DType t) { return kind == ElementwiseKind::predicate ? boolean : t; }

void check_unary(const UnaryRow& row, DType t, int64_t rows, int64_t columns, const Dims& x_strides,
                 const Dims& y_strides) {
  const Array x(t, {rows, columns}, x_strides, [&](int64_t i) { return spread(i, row.low, row.high); });
  Array y(result_of(kind_of(row.op), t), {rows, columns}, y_strides);
  cpu().unary(row.op, y, x, row.p, row.q);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double expected = row.f(x[i], row.p, row.q);
    REQUIRE_MESSAGE(close(y[i], expected, tolerance(t)), name_of(row.op), " ", to_string(t), " of ", x[i], ": ", y[i],
                    ", expected ", expected);
  }
}

}  // namespace

TEST_CASE("unary: every op, floating dtype and layout") {
  for (const UnaryRow& row : unary_rows)
    for (const DType t : floating_dtypes)
      for (const int64_t rows : {1, 5, 33})
        for (const Dims& x_strides : layouts(rows, 31))
          for (const Dims& y_strides : layouts(rows, 31)) check_unary(row, t, rows, 31, x_strides, y_strides);
}

TEST_CASE("unary: in place, and large enough for threads") {
  for (const UnaryRow& row : unary_rows) {
    if (kind_of(row.op) == ElementwiseKind::predicate) continue;
    for (const int64_t n : {1025, 70001}) {
      const Array x(f32, {n}, [&](int64_t i) { return spread(i, row.low, row.high); });
      Array y(f32, {n}, [&](int64_t i) { return spread(i, row.low, row.high); }), apart(f32, {n});
      cpu().unary(row.op, y, y, row.p, row.q);
      cpu().unary(row.op, apart, x, row.p, row.q);
      REQUIRE_MESSAGE(y.values() == apart.values(), name_of(row.op));
    }
  }
}

TEST_CASE("unary: an element's result does not depend on where it stands") {
  for (const UnaryRow& row : unary_rows) {
    if (kind_of(row.op) == ElementwiseKind::predicate) continue;
    const double value = spread(3, row.low, row.high);
    const Array x(f32, {77}, [&](int64_t) { return value; });
    Array y(f32, {77});
    cpu().unary(row.op, y, x, row.p, row.q);
    REQUIRE_MESSAGE(y.values() == std::vector<double>(77, y[0]), name_of(row.op));
  }
}

// At the ends of the range the formulas themselves may lose sense (0 * inf); where they do not, float agrees.
TEST_CASE("unary: infinities, zeros and extremes") {
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<double> inputs = {inf, -inf, 0.0, 1e-30, -1e-30, 88.5, -88.5, 95, -95, -103, 1e30, -1e30, 1e-40};
  for (const UnaryRow& row : unary_rows) {
    const List x(f32, inputs);
    Array y(result_of(kind_of(row.op), f32), {x.numel()});
    cpu().unary(row.op, y, x, row.p, row.q);
    for (int64_t i = 0; i < x.numel(); ++i) {
      const double exact = row.f(x[i], row.p, row.q), expected = static_cast<float>(exact);
      const bool agrees = std::isnan(exact) || close(y[i], expected, 4e-6);
      CHECK_MESSAGE((agrees || (std::abs(x[i]) > 20 && !std::isfinite(y[i]))), name_of(row.op), " of ", x[i], ": ",
                    y[i], ", expected ", expected);
    }
  }
}

TEST_CASE("unary: NaN stays NaN") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Unary op : {Unary::exp, Unary::expm1, Unary::log, Unary::log1p, Unary::tanh, Unary::erf, Unary::sigmoid,
                         Unary::gelu, Unary::silu, Unary::relu, Unary::abs, Unary::floor, Unary::softplus}) {
    const Array x(f32, {33}, [&](int64_t) { return nan; });
    Array y(f32, {33});
    cpu().unary(op, y, x, 1, 20);
    CHECK_MESSAGE(std::isnan(y[0]), name_of(op));
    CHECK_MESSAGE(std::isnan(y[32]), name_of(op));
  }
}

TEST_CASE("unary: accuracy of the vector functions in units of relative error") {
  struct Case {
    Unary op;
    double (*f)(double);
    double low, high, bound;
  };
  const Case cases[] = {{Unary::exp, std::exp, -87, 88, 2e-7},   {Unary::expm1, std::expm1, -10, 20, 4e-7},
                        {Unary::log, std::log, 1e-6, 1e3, 4e-7}, {Unary::log1p, std::log1p, -0.9, 50, 4e-7},
                        {Unary::tanh, std::tanh, -8, 8, 3e-7},   {Unary::erf, std::erf, -4.5, 4.5, 5e-7}};
  for (const Case& c : cases) {
    const int64_t n = 20011;
    const Array x(f32, {n}, [&](int64_t i) { return c.low + (c.high - c.low) * static_cast<double>(i) / n; });
    Array y(f32, {n});
    cpu().unary(c.op, y, x, 0, 0);
    double worst = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double expected = c.f(x[i]);
      if (std::abs(expected) > 1e-30) worst = std::max(worst, std::abs(y[i] - expected) / std::abs(expected));
    }
    CHECK_MESSAGE(worst <= c.bound, name_of(c.op), ": ", worst);
  }
}

TEST_CASE("unary: integers") {
  for (const DType t : {i64, i32, u8}) {
    const List x(t, {0.0, 1, 2, 3, 100});
    Array y(t, {5});
    for (const Unary op : {Unary::floor, Unary::ceil, Unary::round, Unary::trunc, Unary::abs, Unary::relu}) {
      cpu().unary(op, y, x, 0, 0);
      CHECK(y.values() == x.values());
    }
    cpu().unary(Unary::sign, y, x, 0, 0);
    CHECK(y.values() == std::vector<double>{0, 1, 1, 1, 1});
    cpu().unary(Unary::clamp, y, x, 1, std::numeric_limits<double>::infinity());
    CHECK(y.values() == std::vector<double>{1, 1, 2, 3, 100});
  }
  Array large(i64, {1}), y(i64, {1});
  *large.view().as<int64_t>() = (int64_t{1} << 62) + 1;
  cpu().unary(Unary::floor, y, large, 0, 0);
  CHECK(*y.view().as<int64_t>() == (int64_t{1} << 62) + 1);
  *large.view().as<int64_t>() = std::numeric_limits<int64_t>::min();
  cpu().unary(Unary::neg, y, large, 0, 0);
  CHECK(*y.view().as<int64_t>() == std::numeric_limits<int64_t>::min());
}

TEST_CASE("binary: every op, floating dtype, layout and broadcast") {
  for (const BinaryRow& row : binary_rows)
    for (const DType t : floating_dtypes)
      for (const int64_t rows : {1, 7, 33})
        for (const Dims& a_strides : {Dims{31, 1}, Dims{1, rows}, Dims{0, 1}, Dims{1, 0}, Dims{0, 0}})
          for (const Dims& b_strides : {Dims{31, 1}, Dims{1, rows}, Dims{0, 1}, Dims{1, 0}, Dims{0, 0}}) {
            const auto draw = [&](int64_t i) { return spread(i, row.low, row.high); };
            const Array a(t, {rows, 31}, a_strides, draw);
            const Array b(t, {rows, 31}, b_strides, [&](int64_t i) { return draw(i + 11); });
            Array y(result_of(kind_of(row.op), t), {rows, 31}, {31 * 2, 2});
            cpu().binary(row.op, y, a, b);
            for (int64_t i = 0; i < a.numel(); ++i) {
              const double expected = row.f(a[i], b[i]);
              // Quotients are rounded before their floor is taken: a whole step may be lost in low precision.
              const bool step = row.op == Binary::fmod || row.op == Binary::remainder || row.op == Binary::floor_divide;
              if (step && t != f64) continue;
              REQUIRE_MESSAGE(close(y[i], expected, tolerance(t)), name_of(row.op), " ", to_string(t), " of ", a[i],
                              ", ", b[i], ": ", y[i], ", expected ", expected);
            }
          }
}

TEST_CASE("inputs of which every k-th element is read: every dtype, any sizes, nothing beyond the last") {
  for (const DType t : all_dtypes)
    for (const int64_t k : {2, 3, 4, 5, 6, 7, 8, 9, 17})
      for (const int64_t n : {1, 2, 31, 33, 64, 65, 515, 1040}) {
        const auto draw = [&](int64_t i) { return t == boolean ? i % 3 % 2 : static_cast<double>((i * 7 + 3) % 100); };
        const Array a(t, {3, n}, {n * k + 1, k}, draw),
            b(t, {3, n}, {n * (k + 1), k + 1}, [&](int64_t i) { return draw(i + 5); });
        Array y(t, {3, n}), z(t, {3, n});
        cpu().binary(Binary::maximum, y, a, b);
        cpu().copy(z, a);
        for (int64_t i = 0; i < a.numel(); ++i) {
          REQUIRE(y[i] == std::max(a[i], b[i]));
          REQUIRE(z[i] == a[i]);
        }
        cpu().binary(Binary::minimum, a, a, b);  // in place
        for (int64_t i = 0; i < a.numel(); ++i) REQUIRE(a[i] == std::min(z[i], b[i]));
      }
}

TEST_CASE("bf16: what is computed without staging rounds as the rest does, and keeps infinities, zeros and NaN") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> odd = {inf, -inf, nan, 0.0, -0.0, 0x1p-133, -0x1p-133, 0x1.fep127, -0x1.fep127, 1, -1, 257};
  const auto draw = [&](int64_t i) { return i % 5 == 0 ? odd[static_cast<size_t>(i / 5 * 7 % 12)] : scrambled(i) / 3; };
  for (const int64_t n : {1, 31, 33, 515, 3001}) {
    const Array a(bf16, {n}, draw), b(bf16, {n}, [&](int64_t i) { return draw(i * 3 + 5); }),
        wide(f32, {n}, [&](int64_t i) { return b[i]; });
    Array y(bf16, {n}), expected(bf16, {n});
    const auto same = [&](int64_t i) {
      return y[i] == expected[i] ? std::signbit(y[i]) == std::signbit(expected[i])
                                 : std::isnan(y[i]) && std::isnan(expected[i]);
    };
    for (const Binary op : {Binary::add, Binary::sub, Binary::mul}) {
      cpu().binary(op, y, a, b);
      cpu().binary(op, expected, a, wide);  // staged, as b is not of 16 bits
      for (int64_t i = 0; i < n; ++i) REQUIRE_MESSAGE(same(i), name_of(op), " of ", a[i], ", ", b[i], ": ", y[i]);
    }
    Array wide_y(f32, {n});
    cpu().unary(Unary::relu, y, a, 0, 0);
    cpu().unary(Unary::relu, wide_y, a, 0, 0);
    cpu().copy(expected, wide_y);
    for (int64_t i = 0; i < n; ++i) REQUIRE_MESSAGE(same(i), "relu of ", a[i], ": ", y[i]);
  }
}

TEST_CASE("binary: large, in place, scalar operands") {
  const int64_t n = 100003;
  const Array a(f32, {n}, scrambled), two(f32, {n}, {0}, [](int64_t) { return 2; });
  Array y(f32, {n}, scrambled);
  cpu().binary(Binary::mul, y, y, two);
  bool same = true;
  for (int64_t i = 0; i < n; ++i) same &= y[i] == 2 * a[i];
  CHECK(same);
  cpu().binary(Binary::add, y, y, y);
  for (int64_t i = 0; i < n; ++i) same &= y[i] == 4 * a[i];
  CHECK(same);
  Array empty(f32, {0, 3});
  cpu().binary(Binary::add, empty, empty, empty);
}

TEST_CASE("binary: integers wrap, and division by zero or -1 does not trap") {
  const auto run = [](Binary op, int64_t a, int64_t b) {
    Array x(i64, {1}), z(i64, {1}), y(i64, {1});
    *x.view().as<int64_t>() = a;
    *z.view().as<int64_t>() = b;
    cpu().binary(op, y, x, z);
    return *y.view().as<int64_t>();
  };
  constexpr int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
  CHECK(run(Binary::add, most, 1) == least);
  CHECK(run(Binary::mul, most, 2) == -2);
  for (const Binary op : {Binary::fmod, Binary::remainder, Binary::floor_divide}) CHECK(run(op, 7, 0) == 0);
  CHECK(run(Binary::floor_divide, least, -1) == least);
  CHECK(run(Binary::remainder, least, -1) == 0);
  CHECK(run(Binary::floor_divide, -7, 2) == -4);
  CHECK(run(Binary::remainder, -7, 2) == 1);
  CHECK(run(Binary::fmod, -7, 2) == -1);
  CHECK(run(Binary::pow, 3, 30) == 205891132094649);
  CHECK(run(Binary::pow, -1, -3) == -1);
  CHECK(run(Binary::pow, -2, 63) == least);
  CHECK(run(Binary::bitwise_xor, 12, 10) == 6);
  for (const DType t : {i64, i32, u8}) {
    const List a(t, {9.0, 200, 3}), b(t, {4.0, 7, 0});
    Array y(t, {3}), truth(boolean, {3});
    cpu().binary(Binary::floor_divide, y, a, b);
    CHECK(y.values() == std::vector<double>{2, 28, 0});
    cpu().binary(Binary::gt, truth, a, b);
    CHECK(truth.values() == std::vector<double>{1, 1, 1});
  }
}

TEST_CASE("binary: booleans") {
  const List a(boolean, {0.0, 0, 1, 1}), b(boolean, {0.0, 1, 0, 1});
  Array y(boolean, {4});
  const auto run = [&](Binary op) {
    cpu().binary(op, y, a, b);
    return y.values();
  };
  CHECK(run(Binary::add) == std::vector<double>{0, 1, 1, 1});
  CHECK(run(Binary::mul) == std::vector<double>{0, 0, 0, 1});
  CHECK(run(Binary::bitwise_xor) == std::vector<double>{0, 1, 1, 0});
  CHECK(run(Binary::logical_or) == std::vector<double>{0, 1, 1, 1});
  CHECK(run(Binary::eq) == std::vector<double>{1, 0, 0, 1});
}

TEST_CASE("where: every dtype, broadcast condition") {
  for (const DType t : all_dtypes)
    for (const int64_t n : odd_sizes) {
      const Array a(t, {n, 3}, scrambled), b(t, {n, 3}, {0, 0}, [](int64_t) { return 1; });
      const Array condition(boolean, {n, 3}, {1, 0}, [](int64_t i) { return i / 3 % 2; });
      Array y(t, {n, 3}, {1, n});
      cpu().where(y, condition, a, b);
      bool same = true;
      for (int64_t i = 0; i < y.numel(); ++i) same &= y[i] == (condition[i] != 0 ? a[i] : b[i]);
      CHECK(same);
    }
}

TEST_CASE("elementwise: what is not implemented says so") {
  Array whole(i64, {1}), truth(boolean, {1}), real(f32, {1});
  CHECK(error_of([&] { cpu().unary(Unary::exp, whole, whole, 0, 0); }) == "exp: expects a floating dtype, got i64");
  CHECK(error_of([&] { cpu().unary(Unary::neg, truth, truth, 0, 0); }) == "neg: not implemented for boolean on cpu");
  CHECK(error_of([&] { cpu().binary(Binary::div, whole, whole, whole); }) == "div: expects a floating dtype, got i64");
  CHECK(error_of([&] { cpu().binary(Binary::sub, truth, truth, truth); }) == "sub: not implemented for boolean on cpu");
  CHECK(error_of([&] { cpu().binary(Binary::bitwise_and, real, real, real); }) ==
        "bitwise_and: not implemented for f32 on cpu");
}
