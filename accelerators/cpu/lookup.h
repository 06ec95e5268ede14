// SPDX-License-Identifier: Apache-2.0
// Tables of 16 or 32 numbers that are looked up in registers, and functions in pieces made of them. Only vectors of 512
// bits have instructions for these; elsewhere they are declared, for code that asks has_lookup or has_permute
// first.
#pragma once

#include <cstdint>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

#if defined(__AVX512F__)
inline constexpr bool has_lookup = true;

// Lane by lane table[i % size].
[[gnu::always_inline]] inline Vec<float> lookup(const float (&table)[16], Vec<uint32_t> i) {
  return (Vec<float>)_mm512_maskz_permutexvar_ps(__mmask16(-1), (__m512i)i, (__m512)load(table));
}
[[gnu::always_inline]] inline Vec<float> lookup(const float (&table)[32], Vec<uint32_t> i) {
  return (Vec<float>)_mm512_permutex2var_ps((__m512)load(table), (__m512i)i, (__m512)load(table + 16));
}
// |x|, at most `most`; of NaN `most`.
[[gnu::always_inline]] inline Vec<float> magnitude_up_to(Vec<float> x, float most) {
  return (Vec<float>)_mm512_range_ps((__m512)x, (__m512)broadcast(most), 0b1010);
}
// NaN stays NaN.
[[gnu::always_inline]] inline Vec<float> within(Vec<float> x, float low, float high) {
  const __m512 raised = _mm512_maskz_max_ps(__mmask16(-1), (__m512)broadcast(low), (__m512)x);
  return (Vec<float>)_mm512_maskz_min_ps(__mmask16(-1), (__m512)broadcast(high), raised);
}
[[gnu::always_inline]] inline Vec<float> at_most(Vec<float> x, float high) {
  return (Vec<float>)_mm512_maskz_min_ps(__mmask16(-1), (__m512)broadcast(high), (__m512)x);
}
// x 2^n, n rounded down.
[[gnu::always_inline]] inline Vec<float> times_power_of_two(Vec<float> x, Vec<float> n) {
  return (Vec<float>)_mm512_maskz_scalef_ps(__mmask16(-1), (__m512)x, (__m512)n);
}
// No lane is above `most`, or NaN.
template <int count>
[[gnu::always_inline]] inline bool all_up_to(const Vec<float> (&x)[count], float most) {
  static_assert(count <= 2);
  const __mmask16 first = _mm512_cmp_ps_mask((__m512)x[0], (__m512)broadcast(most), _CMP_NLE_UQ);
  const __mmask16 last = _mm512_cmp_ps_mask((__m512)x[count - 1], (__m512)broadcast(most), _CMP_NLE_UQ);
  return _mm512_kortestz(first, last) != 0;
}
// All x are positive and normal, all |y| at most `most`.
[[gnu::always_inline]] inline bool all_plain(Vec<float> x, Vec<float> y, float most) {
  const auto size = (__m512)((Vec<uint32_t>)y & 0x7fffffffu);
  const __mmask16 large = _mm512_cmp_ps_mask(size, (__m512)broadcast(most), _CMP_NLE_UQ);
  return _mm512_kortestz(_mm512_fpclass_ps_mask((__m512)x, 0xff), large) != 0;  // of all classes but that of such x
}
#else
inline constexpr bool has_lookup = false;
template <int size>
Vec<float> lookup(const float (&table)[size], Vec<uint32_t> i);
Vec<float> magnitude_up_to(Vec<float> x, float most);
Vec<float> within(Vec<float> x, float low, float high);
Vec<float> at_most(Vec<float> x, float high);
Vec<float> times_power_of_two(Vec<float> x, Vec<float> n);
template <int count>
bool all_up_to(const Vec<float> (&x)[count], float most);
bool all_plain(Vec<float> x, Vec<float> y, float most);
#endif

// Lane by lane table[index % lanes]; vectors of 256 bits have it too.
inline constexpr bool has_permute = vector_bytes >= 32;
#if defined(__AVX512F__)
[[gnu::always_inline]] inline Vec<uint32_t> permute(Vec<uint32_t> table, Vec<uint32_t> index) {
  return (Vec<uint32_t>)_mm512_maskz_permutexvar_epi32(__mmask16(-1), (__m512i)index, (__m512i)table);
}
#elif defined(__AVX2__)
[[gnu::always_inline]] inline Vec<uint32_t> permute(Vec<uint32_t> table, Vec<uint32_t> index) {
  return (Vec<uint32_t>)_mm256_permutevar8x32_epi32((__m256i)table, (__m256i)index);
}
#else
Vec<uint32_t> permute(Vec<uint32_t> table, Vec<uint32_t> index);
#endif

// A function in pieces, a polynomial in a - at for each.
template <int pieces, int degree>
struct Pieces {
  alignas(64) float at[pieces], coefficients[degree + 1][pieces];
};

// Of several vectors side by side: the steps of one fill the waits of the others.
template <int pieces, int degree, int count>
[[gnu::always_inline]] inline void in_pieces(Vec<float> (&y)[count], const Pieces<pieces, degree>& f,
                                             const Vec<float> (&a)[count], const Vec<uint32_t> (&piece)[count]) {
  Vec<float> d[count];
  for (int v = 0; v < count; ++v) {
    d[v] = a[v] - lookup(f.at, piece[v]);
    y[v] = lookup(f.coefficients[degree], piece[v]);
  }
  for (int k = degree - 1; k >= 0; --k)
    for (int v = 0; v < count; ++v) y[v] = fma(d[v], y[v], lookup(f.coefficients[k], piece[v]));
}

// y[i] = f(x[i] ...); y may be one of these.
template <class F, class... Arrays>
[[gnu::always_inline]] inline void map_vectors(float* y, int64_t n, const F& f, const Arrays*... x) {
  int64_t i = 0;
  for (; i + lanes<float> <= n; i += lanes<float>) store(y + i, f(load(x + i)...));
  if (i == n) return;
  const FirstLanes<float> rest(n - i);
  store(y + i, f(load(x + i, rest)...), rest);
}

// f(vectors of y, vectors of x), two of each at a time; y may be x.
template <class F>
[[gnu::always_inline]] inline void map_pairs(float* y, const float* x, int64_t n, const F& f) {
  constexpr int64_t step = lanes<float>;
  int64_t i = 0;
  for (; i + 2 * step <= n; i += 2 * step) {
    const Vec<float> from[] = {load(x + i), load(x + i + step)};
    Vec<float> to[2];
    f(to, from);
    store(y + i, to[0]);
    store(y + i + step, to[1]);
  }
  const auto one = [&](Vec<float> v) __attribute__((always_inline)) {
    const Vec<float> from[] = {v};
    Vec<float> to[1];
    f(to, from);
    return to[0];
  };
  map_vectors(y + i, n - i, one, x + i);
}

}  // namespace loom::cpu
