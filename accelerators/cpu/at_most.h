// SPDX-License-Identifier: Apache-2.0
// Numbers of 16 bits that choose lanes of wider ones.
#pragma once

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

// Which of a vector's numbers are at most `last`.
class AtMost {
 public:
#if defined(__AVX512F__)
  AtMost(Vec<uint16_t> v, uint16_t last) : chosen_(_mm512_cmple_epu16_mask((__m512i)v, (__m512i)broadcast(last))) {}
  // 1 for each that is, else 0.
  void store_flags(uint8_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), _mm256_maskz_set1_epi8(chosen_, 1));
  }
  // x where those from `first` on are, else 0.
  template <class T>
  [[gnu::always_inline]] Vec<T> choose(int first, Vec<T> x) const {
    if constexpr (sizeof(T) == 4)
      return (Vec<T>)_mm512_maskz_mov_ps(static_cast<__mmask16>(chosen_ >> first), (__m512)x);
    else
      return (Vec<T>)_mm512_maskz_mov_pd(static_cast<__mmask8>(chosen_ >> first), (__m512d)x);
  }

 private:
  __mmask32 chosen_;
#else
  AtMost(Vec<uint16_t> v, uint16_t last) : chosen_(v <= broadcast(last)) {}
  void store_flags(uint8_t* p) const {
#if defined(__AVX2__)
    const __m256i all = (__m256i)chosen_;
    const __m128i flags = _mm_packs_epi16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), _mm_and_si128(flags, _mm_set1_epi8(1)));
#else
    store(p, __builtin_convertvector(chosen_ & 1, VectorOf<uint8_t, vector_bytes / 2>::type));
#endif
  }
  template <class T>
  [[gnu::always_inline]] Vec<T> choose(int first, Vec<T> x) const {
    using Lane = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    return (Vec<T>)(widened<Lane>(first) & (Vec<Lane>)x);
  }

 private:
  template <class Lane>
  [[gnu::always_inline]] Vec<Lane> widened(int first) const {
#if defined(__AVX2__)
    const __m256i all = (__m256i)chosen_;
    const __m128i half = first < 8 ? _mm256_castsi256_si128(all) : _mm256_extracti128_si256(all, 1);
    if constexpr (sizeof(Lane) == 4)
      return (Vec<Lane>)_mm256_cvtepi16_epi32(half);
    else
      return (Vec<Lane>)_mm256_cvtepi16_epi64(first % 8 == 0 ? half : _mm_unpackhi_epi64(half, half));
#elif defined(__x86_64__)
    const __m128i all = (__m128i)chosen_;
    const __m128i twice = first < 4 ? _mm_unpacklo_epi16(all, all) : _mm_unpackhi_epi16(all, all);
    if constexpr (sizeof(Lane) == 4)
      return (Vec<Lane>)twice;
    else
      return (Vec<Lane>)(first % 4 == 0 ? _mm_unpacklo_epi32(twice, twice) : _mm_unpackhi_epi32(twice, twice));
#else
    typename VectorOf<int16_t, 2 * lanes<Lane>>::type part;
    std::memcpy(&part, reinterpret_cast<const char*>(&chosen_) + 2 * first, sizeof(part));
    return __builtin_convertvector(part, Vec<Lane>);
#endif
  }

  Vec<int16_t> chosen_;
#endif
};

}  // namespace loom::cpu
