#include "machine_limits.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <benchmark/benchmark.h>

#include <loom/accelerators/threads.h>

namespace bench {

namespace {

constexpr int64_t floats = 10'000'000;
constexpr int64_t chains = 16;  // independent multiply-adds, to hide their latency
constexpr int64_t turns = 200'000;

// Best of many: a limit is what the machine can do, not what it does on average.
template <class F>
double best_seconds(const F& f) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  const auto begin = Clock::now();  // threads that have just been made need a while to be there
  for (int i = 0; i < 10 || Clock::now() - begin < std::chrono::milliseconds(50); ++i) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

template <class F>
void on_all_threads(const F& f) {
  loom::parallel_for(loom::num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f();
  });
}

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
  const double seconds = best_seconds([&] { on_all_threads(chains_of); });
  return 2.0 * chains * turns * lanes * loom::num_threads() / seconds;
}

}  // namespace

double copy_bandwidth() {
  const std::vector<uint64_t> from(floats / 2, 1);
  std::vector<uint64_t> to(floats / 2);
  const auto seconds = [&](const auto& copy) {
    return best_seconds([&] {
      loom::parallel_for(floats / 2, floats / 2 / loom::num_threads(), [&](int64_t begin, int64_t end) {
        copy(from.data() + begin, from.data() + end, to.data() + begin);
      });
      benchmark::DoNotOptimize(to.data());
    });
  };
  // memcpy goes past the caches, which is slower where they are large; the loop is no copy to the compiler.
  const double past = seconds([](const uint64_t* begin, const uint64_t* end, uint64_t* out) {
    std::memcpy(out, begin, static_cast<size_t>(end - begin) * sizeof(uint64_t));
  });
  const double through = seconds([](const uint64_t* begin, const uint64_t* end, uint64_t* out) {
    std::transform(begin, end, out, [](uint64_t x) { return x ^ 1; });
  });
  return 2 * sizeof(float) * floats / std::min(past, through);
}

double triad_bandwidth() {
  const std::vector<float> x(floats, 1.0F), y(floats, 2.0F);
  std::vector<float> to(floats);
  const double seconds = best_seconds([&] {
    loom::parallel_for(floats, floats / loom::num_threads(), [&](int64_t begin, int64_t end) {
      const float *px = x.data(), *py = y.data();
      float* const p = to.data();
      for (int64_t i = begin; i < end; ++i) p[i] = px[i] + 0.5F * py[i];
    });
    benchmark::DoNotOptimize(to.data());
  });
  return 3 * sizeof(float) * floats / seconds;
}

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
