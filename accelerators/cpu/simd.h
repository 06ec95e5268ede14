// SPDX-License-Identifier: Apache-2.0
// Vectors of the instruction set that the including file is compiled for; the one place that asks which one that is.
// Arithmetic, comparisons and `mask ? a : b` are the compiler's own on these types; what they lack is here.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace loom::cpu {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, vector_registers = 32;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32, vector_registers = 16;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16, vector_registers = 32;
#else
inline constexpr int vector_bytes = 16, vector_registers = 16;
#endif

template <class T, int bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};
template <class T>
using Vec = typename VectorOf<T, vector_bytes>::type;
template <class T>
inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
[[gnu::always_inline]] inline Vec<T> broadcast(T x) {
  return x - Vec<T>{};  // not +: -0 stays -0
}
template <class T>
[[gnu::always_inline]] inline Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <class V, class T>
[[gnu::always_inline]] inline void store(T* p, V v) {
  std::memcpy(p, &v, sizeof(v));
}

// a * b + c, rounded once where the instruction set can; products are never fused otherwise (-ffp-contract=off).
template <class V>
[[gnu::always_inline]] inline V fma(V a, V b, V c) {
  [[maybe_unused]] constexpr bool single = sizeof(a[0]) == 4;
#if defined(__AVX512F__)
  if constexpr (single)
    return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else
    return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__) && defined(__FMA__)
  if constexpr (single)
    return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else
    return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  if constexpr (single)
    return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
  else
    return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// Whether multiply_add rounds once.
#if defined(__FMA__) || defined(__aarch64__)
inline constexpr bool fuses = true;
#else
inline constexpr bool fuses = false;
#endif

// The scalar twin of fma, for loops that the compiler turns into vectors: body and tail round alike.
template <class T>
[[gnu::always_inline]] inline T multiply_add(T a, T b, T c) {
  if constexpr (!fuses)
    return a * b + c;
  else if constexpr (sizeof(T) == 4)
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
}

// Writes past the caches, to an address that is a multiple of vector_bytes; stream_fence() before others may read it.
[[gnu::always_inline]] inline void stream(void* to, const void* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX2__)
  _mm256_stream_si256(static_cast<__m256i*>(to), _mm256_loadu_si256(static_cast<const __m256i*>(from)));
#elif defined(__x86_64__)
  _mm_stream_si128(static_cast<__m128i*>(to), _mm_loadu_si128(static_cast<const __m128i*>(from)));
#else
  std::memcpy(to, from, vector_bytes);
#endif
}
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// The first n of a vector's lanes, 0 <= n <= lanes<T>; T is float or double.
template <class T>
struct FirstLanes {
#if defined(__AVX512F__)
  std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8> bits;
  explicit FirstLanes(int64_t n) : bits(static_cast<decltype(bits)>((1u << n) - 1)) {}
#elif defined(__AVX2__)
  using Lane = std::conditional_t<sizeof(T) == 4, int32_t, long long>;
  Vec<Lane> bits;
  explicit FirstLanes(int64_t n) {
    for (int i = 0; i < lanes<T>; ++i) bits[i] = i < n ? -1 : 0;
  }
#else
  int64_t count;
  explicit FirstLanes(int64_t n) : count(n) {}
#endif
};

// Lanes that the mask leaves out are zero, and their memory is not touched.
template <class T>
[[gnu::always_inline]] inline Vec<T> load(const T* p, const FirstLanes<T>& mask) {
  static_assert(std::is_floating_point_v<T>);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_loadu_ps(mask.bits, p);
  else
    return (Vec<T>)_mm512_maskz_loadu_pd(mask.bits, p);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_maskload_ps(p, (__m256i)mask.bits);
  else
    return (Vec<T>)_mm256_maskload_pd(p, (__m256i)mask.bits);
#else
  Vec<T> v{};
  for (int i = 0; i < lanes<T>; ++i)
    if (i < mask.count) v[i] = p[i];
  return v;
#endif
}

// Writes the masked lanes only.
template <class T>
[[gnu::always_inline]] inline void store(T* p, Vec<T> v, const FirstLanes<T>& mask) {
  static_assert(std::is_floating_point_v<T>);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, mask.bits, (__m512)v);
  else
    _mm512_mask_storeu_pd(p, mask.bits, (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    _mm256_maskstore_ps(p, (__m256i)mask.bits, (__m256)v);
  else
    _mm256_maskstore_pd(p, (__m256i)mask.bits, (__m256d)v);
#else
  for (int i = 0; i < lanes<T>; ++i)
    if (i < mask.count) p[i] = v[i];
#endif
}

}  // namespace loom::cpu
