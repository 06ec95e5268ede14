// Floating numbers of 8 bits, as OCP's specification (2023) has them: bits and conversions. Arithmetic on them is done
// in products alone.
#pragma once

#include <bit>
#include <cstdint>

#include <loom/accelerators/fused.h>
#include <loom/accelerators/half.h>

namespace loom {

// E4M3: 448 is the largest, 0x7f and 0xff are NaN, there is no infinity. E5M2 is the upper half of a binary16.
LOOM_HOST_DEVICE constexpr float largest(Fp8 format) { return format == Fp8::e4m3 ? 448.0f : 57344.0f; }

LOOM_HOST_DEVICE inline float float_of(Fp8 format, uint8_t code) {
  if (format == Fp8::e5m2) return Half::from_bits(static_cast<uint16_t>(code << 8));
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24, rest = code & 0x7fu;
  if (rest == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (rest >= 8) return std::bit_cast<float>(sign | ((rest << 20) + (uint32_t{127 - 7} << 23)));
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(rest) * 0x1p-9f));
}

// The nearest number of the format, ties to even; what lies beyond its range, infinities included, becomes its largest.
// NaN stays NaN.
LOOM_HOST_DEVICE inline uint8_t code_of(Fp8 format, float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value), rest = u & 0x7fffffffu;
  const auto sign = static_cast<uint8_t>(u >> 24 & 0x80u);
  if (rest > 0x7f800000u) return sign | 0x7fu;
  const bool fine = format == Fp8::e4m3;
  const int digits = fine ? 3 : 2, bias = fine ? 7 : 15;  // of the fraction; of the exponent
  const uint8_t most = fine ? 0x7e : 0x7b;
  const uint32_t smallest = static_cast<uint32_t>(127 + 1 - bias) << 23;  // that is normal
  if (rest < smallest) {  // a number beside which the step of a float is that of the format's subnormals
    const uint32_t beside = static_cast<uint32_t>(127 + 1 - bias - digits + 23) << 23;
    const float shifted = std::bit_cast<float>(rest) + std::bit_cast<float>(beside);
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - beside));
  }
  const int drop = 23 - digits;
  const uint32_t odd = rest >> drop & 1u;
  const uint32_t rounded =
      (rest - (static_cast<uint32_t>(127 - bias) << 23) + (uint32_t{1} << (drop - 1)) - 1 + odd) >> drop;
  return static_cast<uint8_t>(sign | (rounded > most ? most : rounded));
}

}  // namespace loom
