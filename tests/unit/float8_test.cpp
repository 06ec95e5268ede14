// SPDX-License-Identifier: Apache-2.0
// Floats of 8 bits against PyTorch's: all codes, and the rounding of all numbers of f16 (tests/golden/float8_cases.py).
#include <loom/accelerators/float8.h>

#include <limits>

#include "golden.h"

namespace {

using namespace loom;

constexpr std::pair<Fp8, const char*> formats[] = {{Fp8::e4m3, "e4m3"}, {Fp8::e5m2, "e5m2"}};

bool is_nan(float x) { return x != x; }

}  // namespace

TEST_CASE("floats of 8 bits: what all codes stand for") {
  for (const auto& [format, name] : formats) {
    const auto values = golden::file("float8").at(str(name, ".values")).to_vector<float>();
    REQUIRE(values.size() == 256);
    for (int code = 0; code < 256; ++code) {
      const float own = float_of(format, static_cast<uint8_t>(code)), theirs = values[static_cast<size_t>(code)];
      CHECK_MESSAGE(
          ((is_nan(own) && is_nan(theirs)) || std::bit_cast<uint32_t>(own) == std::bit_cast<uint32_t>(theirs)), name,
          " ", code, ": ", own, ", not ", theirs);
    }
  }
}

TEST_CASE("floats of 8 bits: how all numbers of f16 are rounded") {
  for (const auto& [format, name] : formats) {
    const auto codes = golden::file("float8").at(str(name, ".codes")).to_vector<uint8_t>();
    REQUIRE(codes.size() == 65536);
    int wrong = 0;
    for (size_t bits = 0; bits < codes.size(); ++bits) {
      const float x = Half::from_bits(static_cast<uint16_t>(bits));
      const uint8_t own = code_of(format, x);
      wrong += is_nan(x) ? !is_nan(float_of(format, own)) : own != codes[bits];
    }
    CHECK_MESSAGE(wrong == 0, name);
  }
}

TEST_CASE("floats of 8 bits: what f16 does not have") {
  for (const auto& [format, name] : formats) {
    CAPTURE(name);
    const float most = largest(format), tiny = float_of(format, 1);
    CHECK(float_of(format, code_of(format, 1e30f)) == most);
    CHECK(float_of(format, code_of(format, -std::numeric_limits<float>::infinity())) == -most);
    CHECK(code_of(format, tiny / 2) == 0);                        // a tie, to even
    CHECK(code_of(format, std::nextafter(tiny / 2, 1.0f)) == 1);  // beyond it
    CHECK(code_of(format, -1e-30f) == 0x80);
    for (int code = 0; code < 256; ++code)
      if (const float x = float_of(format, static_cast<uint8_t>(code)); std::fabs(x) <= most)
        CHECK(code_of(format, x) == code);
  }
}
