// SPDX-License-Identifier: Apache-2.0
// Vectors of the instruction set that the including file is compiled for; with at_most.h, lookup.h, narrow.h
// and set_bits.h the place that asks which it is. Arithmetic, comparisons, `mask ? a : b` are the compiler's own on
// these types; the rest is here.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <loom/accelerators/cpu.h>
#include <loom/accelerators/half.h>

namespace loom::cpu {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, vector_registers = 32;
inline constexpr bool has_fma = true;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32, vector_registers = 16;
inline constexpr bool has_fma = true;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16, vector_registers = 32;
inline constexpr bool has_fma = true;
#else
inline constexpr int vector_bytes = 16, vector_registers = 16;
inline constexpr bool has_fma = false;
#endif

template <class T, int bytes>
struct VectorOf {};
template <class T, int bytes>
  requires std::is_arithmetic_v<T>
struct VectorOf<T, bytes> {
  typedef T type __attribute__((vector_size(bytes)));  // NOLINT(modernize-use-using): g++ takes the attribute here only
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
  requires(!std::is_class_v<T>)
[[gnu::always_inline]] inline Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <class V, class T>
[[gnu::always_inline]] inline void store(T* p, V v) {
  std::memcpy(p, &v, sizeof(v));
}

// v, loaded by now: else compilers make of `mask ? v : 0` a load under the mask, which waits for what the mask is of.
template <class V>
[[gnu::always_inline]] inline V loaded(V v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

// 16-bit floats, widened.
[[gnu::always_inline]] inline Vec<float> load(const BFloat16* p) {
#if defined(__AVX512F__)  // g++ would widen halves and join them
  const __m256i some = _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(p));
  return (Vec<float>)((Vec<uint32_t>)_mm512_maskz_cvtepu16_epi32(__mmask16(-1), some) << 16);
#else
  VectorOf<uint16_t, vector_bytes / 2>::type bits;
  std::memcpy(&bits, p, sizeof(bits));
  return (Vec<float>)(__builtin_convertvector(bits, Vec<uint32_t>) << 16);
#endif
}
[[gnu::always_inline]] inline Vec<float> load(const Half* p) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_cvtph_ps(__mmask16(-1), _mm256_loadu_si256(reinterpret_cast<const __m256i_u*>(p)));
#elif defined(__AVX2__) && defined(__F16C__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i_u*>(p)));
#else
  Vec<float> v;
  for (int i = 0; i < lanes<float>; ++i) v[i] = static_cast<float>(p[i]);
  return v;
#endif
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

// Products of bf16 pairs: lane l of c gains a[2l] * b[2l] + a[2l + 1] * b[2l + 1]. Known at run time, as few processors
// with AVX-512 have it; hence asm, which needs no flag that would let the compiler use it elsewhere.
#if defined(__AVX512F__)
inline constexpr bool may_have_pair_products = true;
inline bool has_pair_products() {
  static const bool chosen = cpu_instruction_set() == "avx512bf16";
  return chosen;
}
[[gnu::always_inline]] inline Vec<float> pair_products(Vec<float> a, Vec<float> b, Vec<float> c) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
  return c;
}
// Bits of the first n <= 2 * lanes<float> elements, zeros after them.
[[gnu::always_inline]] inline Vec<float> load_first_pairs(const BFloat16* p, int64_t n) {
  return (Vec<float>)_mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p);
}
// Rounds as BFloat16(float) does, but subnormal numbers become zero, as they do within pair_products.
[[gnu::always_inline]] inline void store_first(BFloat16* p, Vec<float> v, int64_t n) {
  __m256i bits;
  asm("vcvtneps2bf16 %1, %0" : "=v"(bits) : "v"(v));
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1), bits);
}
#else
inline constexpr bool may_have_pair_products = false;
inline bool has_pair_products() { return false; }
#endif

// Products of the low 32 bits of each lane, in 64.
[[gnu::always_inline]] inline Vec<uint64_t> low_products(Vec<uint64_t> a, Vec<uint64_t> b) {
#if defined(__AVX512F__)
  return (Vec<uint64_t>)_mm512_maskz_mul_epu32(__mmask8(-1), (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Vec<uint64_t>)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (Vec<uint64_t>)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

// The scalar twin of fma, for loops that the compiler turns into vectors: body and tail round alike.
template <class T>
[[gnu::always_inline]] inline T multiply_add(T a, T b, T c) {
  if constexpr (!has_fma)
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

// The line of x is wanted soon. Not __builtin_prefetch where that can be avoided: g++ takes a function that does
// nothing else for one without effect, and drops calls of it.
[[gnu::always_inline]] inline void prefetch(const void* x) {
#if defined(__x86_64__)
  asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(x)));
#else
  __builtin_prefetch(x);
#endif
}
// The same into the second cache, which lets more lines be on their way than the first.
[[gnu::always_inline]] inline void prefetch_second(const void* x) {
#if defined(__x86_64__)
  asm volatile("prefetcht1 %0" : : "m"(*static_cast<const char*>(x)));
#else
  __builtin_prefetch(x, 0, 2);
#endif
}
// The lines of n bytes from x on are wanted soon.
inline void prefetch_run(const void* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 64) prefetch(static_cast<const char*>(x) + i);
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
    for (int i = 0; i < lanes<T>; ++i) bits[i] = i;
    bits = bits < static_cast<Lane>(n);
  }
#else
  int64_t count;
  explicit FirstLanes(int64_t n) : count(n) {}
#endif
};

// Lanes that the mask leaves out are zero, and their memory is not touched.
template <class T>
  requires(!std::is_class_v<T>)
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

// The first n lanes from memory, zeros in the others: 0 <= n <= lanes.
template <class T>
  requires(!std::is_class_v<T>)
[[gnu::always_inline]] inline Vec<T> load_first(const T* p, int64_t n) {
  return load(p, FirstLanes<T>(n));
}
template <class S>
  requires(sizeof(S) == 2)
[[gnu::always_inline]] inline Vec<float> load_first(const S* p, int64_t n) {
  S some[lanes<float>];
#if defined(__AVX512F__)
  const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p);
  std::memcpy(static_cast<void*>(some), &bits, sizeof(some));
#else
  for (int64_t i = 0; i < lanes<float>; ++i) some[i] = i < n ? p[i] : S();
#endif
  return load(some);
}

}  // namespace loom::cpu
