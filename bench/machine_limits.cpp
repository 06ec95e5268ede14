#include "machine_limits.h"

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <benchmark/benchmark.h>

#include <loom/accelerators/threads.h>

#include "team.h"

namespace bench {

namespace {

constexpr int64_t chains = 16;  // independent multiply-adds, to hide their latency
constexpr int64_t turns = 200'000;

void portable_chains() {
  float sums[chains * 4] = {};
  for (int64_t i = 0; i < turns; ++i) {
    for (float& sum : sums) sum = sum * 0.5F + 1.0F;
    benchmark::ClobberMemory();
  }
  benchmark::DoNotOptimize(sums);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void avx2_chains() {
  __m256 sums[chains];
  const __m256 factor = _mm256_set1_ps(0.5F), term = _mm256_set1_ps(1.0F);
  for (__m256& sum : sums) sum = term;
  for (int64_t i = 0; i < turns; ++i)
#pragma GCC unroll 16
    for (int64_t j = 0; j < chains; ++j) sums[j] = _mm256_fmadd_ps(sums[j], factor, term);
  for (__m256& sum : sums) benchmark::DoNotOptimize(sum);
}

__attribute__((target("avx512f"))) void avx512_chains() {
  __m512 sums[chains];
  const __m512 factor = _mm512_set1_ps(0.5F), term = _mm512_set1_ps(1.0F);
  for (__m512& sum : sums) sum = term;
  for (int64_t i = 0; i < turns; ++i)
#pragma GCC unroll 16
    for (int64_t j = 0; j < chains; ++j) sums[j] = _mm512_fmadd_ps(sums[j], factor, term);
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
}

__attribute__((target("avx512f,avx512bf16"))) void bf16_chains() {
  __m512 sums[chains];
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3F80));
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < turns; ++i)
#pragma GCC unroll 16
    for (int64_t j = 0; j < chains; ++j) sums[j] = _mm512_dpbf16_ps(sums[j], ones, ones);
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
}
#endif

// Operations a second of chains on every thread, `lanes` multiply-adds each.
double operations_of(void (*chains_of)(), double lanes) {
  const int threads = loom::num_threads();
  const double seconds = best_seconds(threads, [&](int) { chains_of(); });
  return 2.0 * chains * turns * lanes * threads / seconds;
}

}  // namespace

double fma_peak() {
  void (*chains_of)() = portable_chains;
  double lanes = 4;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    chains_of = avx512_chains;
    lanes = 16;
  } else if (__builtin_cpu_supports("fma")) {
    chains_of = avx2_chains;
    lanes = 8;
  }
#endif
  return operations_of(chains_of, lanes);
}

double bf16_peak() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) return operations_of(bf16_chains, 32);
#endif
  return fma_peak();
}

}  // namespace bench
