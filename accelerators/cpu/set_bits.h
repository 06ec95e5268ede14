// SPDX-License-Identifier: Apache-2.0
// Booleans as bits, and bits as the places of those that are set.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

inline constexpr int64_t word_bits = 64;

// Bit i: set[i].
[[gnu::always_inline]] inline uint64_t bits_of(const bool* set) {
#if defined(__AVX512F__)
  const __m512i all = _mm512_loadu_si512(set);
  return _mm512_test_epi8_mask(all, all);
#elif defined(__AVX2__)
  const auto half = [=](int i) {
    const __m256i part = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(set) + i);
    return uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_slli_epi16(part, 7)))};
  };
  return half(0) | half(1) << 32;
#elif defined(__x86_64__)
  const auto quarter = [=](int i) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(set) + i);
    return static_cast<uint64_t>(_mm_movemask_epi8(_mm_slli_epi16(part, 7)));
  };
  return quarter(0) | quarter(1) << 16 | quarter(2) << 32 | quarter(3) << 48;
#else
  uint64_t bits = 0;
  for (int64_t i = 0; i < word_bits; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, set + i, sizeof(eight));
    bits |= (eight * 0x0102040810204080 >> 56) << i;
  }
  return bits;
#endif
}

// Bit i: lane i of a is that of b. T: float or double
template <class T>
[[gnu::always_inline]] inline uint32_t equal_bits(Vec<T> a, Vec<T> b) {
  [[maybe_unused]] constexpr bool single = sizeof(T) == 4;
#if defined(__AVX512F__)
  if constexpr (single)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
  else
    return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ);
#elif defined(__AVX2__)
  if constexpr (single)
    return static_cast<uint32_t>(_mm256_movemask_ps((__m256)(a == b)));
  else
    return static_cast<uint32_t>(_mm256_movemask_pd((__m256d)(a == b)));
#elif defined(__x86_64__)
  if constexpr (single)
    return static_cast<uint32_t>(_mm_movemask_ps((__m128)(a == b)));
  else
    return static_cast<uint32_t>(_mm_movemask_pd((__m128d)(a == b)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < lanes<T>; ++i) bits |= uint32_t{a[i] == b[i]} << i;
  return bits;
#endif
}

// For every byte the numbers of its set bits, lowest first, with nothing of meaning after them; and how many they are.
struct BytePlaces {
  std::array<std::array<uint8_t, 8>, 256> places{};
  std::array<uint8_t, 256> count{};
};
inline constexpr BytePlaces byte_places = [] {
  BytePlaces table;
  for (unsigned byte = 0; byte < 256; ++byte)
    for (uint8_t bit = 0; bit < 8; ++bit)
      if ((byte >> bit & 1) != 0) table.places[byte][table.count[byte]++] = bit;
  return table;
}();

// to[i] = first + places[i] for eight of them.
[[gnu::always_inline]] inline void store_places(int64_t* to, const uint8_t* places, int64_t first) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i_u*>(places));
  store(to, (Vec<int64_t>)_mm512_maskz_cvtepu8_epi64(__mmask8(-1), bytes) + first);
#elif defined(__AVX2__)
  for (int i = 0; i < 8; i += 4) store(to + i, (Vec<int64_t>)_mm256_cvtepu8_epi64(_mm_loadu_si32(places + i)) + first);
#else
  for (int i = 0; i < 8; ++i) to[i] = first + places[i];
#endif
}

// Writes first + i for each set bit i and returns where it stopped. Eight at a time are written, whether set or not: a
// branch on data that nobody can foresee costs more.
[[gnu::always_inline]] inline int64_t* list_bits(int64_t* out, uint64_t bits, int64_t first) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < word_bits; i += 8, bits >>= 8) {
    const size_t byte = bits & 255;
    store_places(out, byte_places.places[byte].data(), first + i);
    out += byte_places.count[byte];
  }
  return out;
}

inline constexpr bool counts_bits = vector_bytes > 16;  // by instructions of their own

[[gnu::always_inline]] inline int64_t count_bits(uint64_t bits) {
  if constexpr (counts_bits) return std::popcount(bits);
  bits -= bits >> 1 & 0x5555555555555555;
  bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
  return static_cast<int64_t>(((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56);
}

// The same where few are set, four at a time where that costs little.
[[gnu::always_inline]] inline uint16_t* list_few_bits(uint16_t* out, uint64_t bits, int64_t first) {
  if constexpr (!counts_bits) {
    for (; bits != 0; bits &= bits - 1) *out++ = static_cast<uint16_t>(first + std::countr_zero(bits));
    return out;
  }
  for (int64_t left = count_bits(bits);; left -= 4) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k, bits &= bits - 1) out[k] = static_cast<uint16_t>(first + std::countr_zero(bits));
    if (left <= 4) return out + left;
    out += 4;
  }
}

// Places packed by one instruction for all of a word. Known at run time as few processors with AVX-512 have it; hence
// asm.
#if defined(__AVX512F__)
inline constexpr bool may_pack_places = true;
inline bool packs_places() {
  static const bool chosen = cpu_instruction_set() == "avx512bf16" && __builtin_cpu_supports("avx512vbmi2");
  return chosen;
}
// Writes first + i for each set bit i and returns where it stopped; writes up to 64 numbers. few: seldom more than half
// of the bits are set.
template <bool few>
[[gnu::always_inline]] inline uint16_t* pack_places(uint16_t* out, uint64_t bits, int64_t first) {
  VectorOf<uint8_t, 64>::type all;
  for (int i = 0; i < 64; ++i) all[i] = static_cast<uint8_t>(i);
  __m512i places;
  asm("vpcompressb %1, %0%{%2%}%{z%}" : "=v"(places) : "v"(all), "Yk"(static_cast<__mmask64>(bits)));
  const Vec<uint16_t> start = broadcast(static_cast<uint16_t>(first));
  const int64_t count = count_bits(bits);
  store(out, (Vec<uint16_t>)_mm512_maskz_cvtepu8_epi16(__mmask32(-1), _mm512_castsi512_si256(places)) + start);
  if (!few || count > 32)
    store(out + 32, (Vec<uint16_t>)_mm512_maskz_cvtepu8_epi16(
                        __mmask32(-1), _mm512_maskz_extracti64x4_epi64(__mmask8(-1), places, 1)) +
                        start);
  return out + count;
}
#else
inline constexpr bool may_pack_places = false;
inline bool packs_places() { return false; }
template <bool few>
uint16_t* pack_places(uint16_t* out, uint64_t bits, int64_t first);
#endif

}  // namespace loom::cpu
