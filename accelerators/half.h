// The 16-bit floating types, as plain bits with conversions to and from float. Arithmetic on them is done in float.
#pragma once

#include <bit>
#include <cstdint>

// Marks functions that also run on the device when a CUDA compiler reads them. There the conversions are instructions;
// they differ in the bits of NaN alone.
#if defined(__CUDACC__)
#define LOOM_HOST_DEVICE __host__ __device__
#else
#define LOOM_HOST_DEVICE
#endif

namespace loom {

// bfloat16: the upper half of a float. Rounds to nearest even; NaN stays NaN.
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16() = default;
  LOOM_HOST_DEVICE explicit BFloat16(float value) : bits(round(value)) {}
  LOOM_HOST_DEVICE operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
  static LOOM_HOST_DEVICE BFloat16 from_bits(uint16_t b) {
    BFloat16 out;
    out.bits = b;
    return out;
  }
  // One of the two neighbours of value, the nearer one more often, so that the mean over uniform `random` is value.
  static LOOM_HOST_DEVICE BFloat16 stochastic(float value, uint32_t random) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7f800000u) == 0x7f800000u) return BFloat16(value);  // infinities and NaN
    return from_bits(static_cast<uint16_t>((u + (random & 0xffffu)) >> 16));
  }

 private:
  static LOOM_HOST_DEVICE uint16_t round(float value) {
#if defined(__CUDA_ARCH__)
    uint16_t nearest;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(nearest) : "f"(value));
    return nearest;
#else
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x0040u);  // quiet NaN
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
#endif
  }
};

// IEEE binary16. Rounds to nearest even; values from 65520 up become infinity; subnormals are kept.
struct Half {
  uint16_t bits = 0;
  Half() = default;
  LOOM_HOST_DEVICE explicit Half(float value) : bits(round(value)) {}
  LOOM_HOST_DEVICE operator float() const { return widen(bits); }
  static LOOM_HOST_DEVICE Half from_bits(uint16_t b) {
    Half out;
    out.bits = b;
    return out;
  }
  // As BFloat16::stochastic; above the largest finite number as the constructor.
  static LOOM_HOST_DEVICE Half stochastic(float value, uint32_t random) {
    const uint32_t u = std::bit_cast<uint32_t>(value), rest = u & 0x7fffffffu;
    const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
    if (rest >= 0x477fe000u) return Half(value);  // 65504 and above, infinities and NaN
    if (rest >= 0x38800000u)
      return from_bits(static_cast<uint16_t>(sign | ((rest - 0x38000000u + (random & 0x1fffu)) >> 13)));
    const float quanta = std::bit_cast<float>(rest) * 0x1p24f;  // subnormal: exact
    const auto below = static_cast<uint16_t>(quanta);
    const bool up = static_cast<float>(random & 0xffffu) * 0x1p-16f < quanta - static_cast<float>(below);
    return from_bits(static_cast<uint16_t>(sign | (below + (up ? 1 : 0))));
  }

 private:
  static LOOM_HOST_DEVICE float widen(uint16_t h) {
#if defined(__CUDA_ARCH__)
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(h));
    return wide;
#else
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t rest = static_cast<uint32_t>(h & 0x7fffu);
    if (rest >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
    if (rest >= 0x0400u) return std::bit_cast<float>(sign | ((rest << 13) + 0x38000000u));
    const float magnitude = static_cast<float>(rest) * 0x1p-24f;  // zero and subnormals: exact in float
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
#endif
  }
  static LOOM_HOST_DEVICE uint16_t round(float value) {
#if defined(__CUDA_ARCH__)
    uint16_t nearest;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(nearest) : "f"(value));
    return nearest;
#else
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
    const uint32_t rest = u & 0x7fffffffu;
    if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and above
    if (rest < 0x38800000u) {  // subnormal in binary16: adding 0.5 puts the rounding where float does it
      const float shifted = std::bit_cast<float>(rest) + 0.5f;
      return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
    }
    const uint32_t odd = (rest >> 13) & 1u;
    return static_cast<uint16_t>(sign | static_cast<uint16_t>((rest - 0x38000000u + 0xfffu + odd) >> 13));
#endif
  }
};

}  // namespace loom
