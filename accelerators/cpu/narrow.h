// SPDX-License-Identifier: Apache-2.0
// Runs of floats rounded to bf16, to the bits of BFloat16(float).
#pragma once

#include <cstdint>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

inline void narrow_each(BFloat16* __restrict y, const float* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = BFloat16(x[i]);
}

#if defined(__AVX512F__)
// Two vectors, the bits of the first below those of the second; false, and nothing is written, where a lane is
// subnormal, which the instruction makes zero.
[[gnu::always_inline]] inline bool store_rounded(BFloat16* y, Vec<float> low, Vec<float> high) {
  constexpr int subnormal = 0x20;
  const __mmask16 first = _mm512_fpclass_ps_mask((__m512)low, subnormal);
  if (_mm512_kortestz(first, _mm512_fpclass_ps_mask((__m512)high, subnormal)) == 0) return false;
  __m512i bits;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(bits) : "v"(low), "v"(high));
  _mm512_storeu_si512(y, bits);
  return true;
}

inline void narrow_run(BFloat16* y, const float* x, int64_t n) {
  constexpr int64_t width = lanes<float>;
  int64_t i = 0;
  if (has_pair_products())
    for (; i + 2 * width <= n; i += 2 * width)
      if (!store_rounded(y + i, load(x + i), load(x + i + width))) [[unlikely]]
        narrow_each(y + i, x + i, 2 * width);
  narrow_each(y + i, x + i, n - i);
}
#else
inline void narrow_run(BFloat16* y, const float* x, int64_t n) { narrow_each(y, x, n); }
#endif

}  // namespace loom::cpu
