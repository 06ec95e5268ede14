#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <loom/accelerators/half.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

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

loom::Tensor all_patterns(loom::DType dtype) {
  loom::Tensor x = loom::empty({65536}, dtype);
  auto* const bits = static_cast<uint16_t*>(x.storage()->data());
  for (uint32_t i = 0; i < 65536; ++i) bits[i] = static_cast<uint16_t>(i);
  return x;
}

// Tensors of 16 bits as their patterns, every NaN as the same one.
template <class Number>
std::vector<uint16_t> patterns(const loom::Tensor& x) {
  const auto* const bits = static_cast<const uint16_t*>(x.storage()->data());
  std::vector<uint16_t> out(bits, bits + x.numel());
  for (uint16_t& b : out)
    if (std::isnan(static_cast<float>(Number::from_bits(b)))) b = 0x7fff;
  return out;
}

// What the processor's kernels make of all patterns, and of all numbers halfway between two, is what the scalar type
// makes of them.
template <class Number>
void check_kernels(loom::DType dtype) {
  const loom::Tensor all = all_patterns(dtype);
  std::vector<float> wide(65536), halfway;
  for (uint32_t i = 0; i < 65536; ++i) {
    wide[i] = Number::from_bits(static_cast<uint16_t>(i));
    const float next = Number::from_bits(static_cast<uint16_t>(i + 1));
    const float middle = wide[i] + (next - wide[i]) / 2;
    for (const float x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, INFINITY * middle)})
      halfway.push_back(x);
  }
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < a.size(); ++i)
      if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]) && !(std::isnan(a[i]) && std::isnan(b[i])))
        return false;
    return a.size() == b.size();
  };
  const auto floats = [](const loom::Tensor& x) { return x.to_vector<float>(); };
  const auto rounded = [](const std::vector<float>& values) {
    std::vector<uint16_t> out;
    out.reserve(values.size());
    for (const float x : values) out.push_back(std::isnan(x) ? 0x7fff : Number(x).bits);
    return out;
  };
  const auto of = [](const std::vector<float>& values) {
    return loom::from_vector(values, {static_cast<int64_t>(values.size())});
  };
  namespace raw = loom::raw;
  CHECK(same(floats(raw::cast(all, loom::f32)), wide));
  CHECK(same(floats(raw::cast(raw::cast(all, loom::f64), loom::f32)), wide));
  CHECK(patterns<Number>(raw::cast(of(wide), dtype)) == patterns<Number>(all));
  CHECK(patterns<Number>(raw::cast(raw::cast(of(wide), loom::f64), dtype)) == patterns<Number>(all));
  CHECK(patterns<Number>(raw::cast(of(halfway), dtype)) == rounded(halfway));
  // Arithmetic: widened, computed in f32, rounded.
  std::vector<float> products, sums;
  for (const float x : wide) {
    products.push_back(x * 0.6875f);
    sums.push_back(x + x);
  }
  const loom::Tensor factor = loom::full({65536}, 0.6875, dtype);
  CHECK(patterns<Number>(raw::binary(loom::Binary::mul, all, factor)) == rounded(products));
  CHECK(patterns<Number>(raw::binary(loom::Binary::add, all, all)) == rounded(sums));
}

}  // namespace

TEST_CASE("98: all patterns through the kernels") {
  check_kernels<Half>(loom::f16);
  check_kernels<BFloat16>(loom::bf16);
}

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
