#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <loom/accelerators/half.h>

using loom::BFloat16;
using loom::Half;

namespace {

// binary16 by its definition.
double value_of_half(uint32_t bits) {
  const double sign = bits & 0x8000u ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = static_cast<int>(bits & 1023);
  if (exponent == 31) return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

}  // namespace

TEST_CASE("half: all patterns widen to their value and come back") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Half h = Half::from_bits(static_cast<uint16_t>(bits));
    const float wide = h;
    const double expected = value_of_half(bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(wide));
      REQUIRE(std::isnan(static_cast<float>(Half(wide))));
    } else {
      REQUIRE(static_cast<double>(wide) == expected);
      REQUIRE(std::signbit(wide) == ((bits & 0x8000u) != 0));
      REQUIRE(Half(wide).bits == bits);
    }
  }
}

TEST_CASE("half: rounds to the nearest, ties to even") {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = value_of_half(bits), high = value_of_half(bits + 1);
    const auto middle = static_cast<float>((low + high) / 2);  // exact: one bit more than binary16 has
    const auto even = static_cast<uint16_t>(bits & 1 ? bits + 1 : bits);
    REQUIRE(Half(middle).bits == even);
    REQUIRE(Half(std::nextafter(middle, 0.0f)).bits == bits);
    REQUIRE(Half(std::nextafter(middle, 1e9f)).bits == bits + 1);
    REQUIRE(Half(-middle).bits == (even | 0x8000));
  }
}

TEST_CASE("half: range") {
  CHECK(Half(65504.0f).bits == 0x7bff);
  CHECK(Half(65519.996f).bits == 0x7bff);
  CHECK(Half(65520.0f).bits == 0x7c00);
  CHECK(Half(-1e30f).bits == 0xfc00);
  CHECK(Half(std::numeric_limits<float>::infinity()).bits == 0x7c00);
  CHECK(Half(0x1p-25f).bits == 0);  // a tie with zero
  CHECK(Half(0x1.002p-25f).bits == 1);
  CHECK(Half(-0.0f).bits == 0x8000);
}

#if defined(__FLT16_MAX__) && defined(__x86_64__)  // g++ 12 has the type in C++ there only
TEST_CASE("half: agrees with the compiler") {
  for (uint32_t i = 0; i < 1u << 22; ++i) {
    const auto x = std::bit_cast<float>(i * 1021u);
    const _Float16 theirs = static_cast<_Float16>(x);
    uint16_t bits;
    std::memcpy(&bits, &theirs, 2);
    if (std::isnan(x))
      REQUIRE(std::isnan(static_cast<float>(Half(x))));
    else
      REQUIRE(Half(x).bits == bits);
  }
}
#endif

TEST_CASE("bfloat16: all patterns come back, ties go to even") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float wide = BFloat16::from_bits(static_cast<uint16_t>(bits));
    if (std::isnan(wide)) {
      REQUIRE(std::isnan(static_cast<float>(BFloat16(wide))));
      continue;
    }
    REQUIRE(std::bit_cast<uint32_t>(wide) == bits << 16);
    REQUIRE(BFloat16(wide).bits == bits);
    if ((bits & 0x7fff) >= 0x7f7f) continue;
    const auto middle = std::bit_cast<float>(bits << 16 | 0x8000u);
    REQUIRE(BFloat16(middle).bits == (bits & 1 ? bits + 1 : bits));
    REQUIRE(BFloat16(std::bit_cast<float>(bits << 16 | 0x7fffu)).bits == bits);
    REQUIRE(BFloat16(std::bit_cast<float>(bits << 16 | 0x8001u)).bits == bits + 1);
  }
  CHECK(std::isinf(static_cast<float>(BFloat16(std::numeric_limits<float>::max()))));
}
