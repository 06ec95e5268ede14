// How fast memory is: the best of some ways to copy it.
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <benchmark/benchmark.h>

#include <loom/accelerators/error.h>
#include <loom/accelerators/threads.h>

#include "machine_limits.h"
#include "team.h"

namespace bench {

namespace {

constexpr size_t floats = 10'000'000, huge_page = size_t{2} << 20, line = 64;

struct Unmap {
  size_t bytes = 0;
  void operator()(char* memory) const { munmap(memory, bytes); }
};

// 10M floats that begin on a 2 MiB boundary.
class Floats {
 public:
  explicit Floats(Pages pages) {
    const size_t length = floats * sizeof(float) + huge_page;
    void* const mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    loom::check(mapped != MAP_FAILED, "no memory for the copy of 40 MB");
    mapping_ = std::unique_ptr<char, Unmap>(static_cast<char*>(mapped), Unmap{length});
    size_t room = length;
    void* begin = mapped;
    begin_ = static_cast<float*>(std::align(huge_page, floats * sizeof(float), begin, room));
    if (pages == Pages::huge) madvise(begin_, floats * sizeof(float), MADV_HUGEPAGE);
  }

  // What thread i of so many handles, in whole cache lines.
  std::span<float> part(int i, int threads) const {
    const auto border = [threads](int k) {
      const size_t at = floats * static_cast<size_t>(k) / static_cast<size_t>(threads);
      return k == threads ? floats : at / (line / sizeof(float)) * (line / sizeof(float));
    };
    return {begin_ + border(i), begin_ + border(i + 1)};
  }

 private:
  std::unique_ptr<char, Unmap> mapping_;
  float* begin_ = nullptr;
};

using Copy = void (*)(std::span<const float> from, std::span<float> to);

void by_library(std::span<const float> from, std::span<float> to) {
  std::memcpy(to.data(), from.data(), from.size_bytes());
}

// Not one that the compiler knows as a copy.
void by_loop(std::span<const float> from, std::span<float> to) {
  std::transform(from.begin(), from.end(), to.begin(), [](float x) { return -x; });
}

#if defined(__x86_64__)
// Past the caches: what is written is not read before. Parts are whole cache lines.
void by_streaming(std::span<const float> from, std::span<float> to) {
  for (size_t i = 0; i < from.size(); i += 4) _mm_stream_ps(to.data() + i, _mm_load_ps(from.data() + i));
  _mm_sfence();
}

__attribute__((target("avx512f"))) void by_wide_streaming(std::span<const float> from, std::span<float> to) {
  for (size_t i = 0; i < from.size(); i += 16) _mm512_stream_ps(to.data() + i, _mm512_load_ps(from.data() + i));
  _mm_sfence();
}

// The processor's own copy, which may do without reading what it overwrites.
void by_one_instruction(std::span<const float> from, std::span<float> to) {
  const void* source = from.data();
  void* target = to.data();
  size_t bytes = from.size_bytes();
  asm volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(bytes) : : "memory");
}
#endif
static_assert(floats * sizeof(float) % line == 0);

std::vector<Copy> copies_of(Ways ways) {
  std::vector<Copy> copies{by_library, by_loop};
#if defined(__x86_64__)
  if (ways == Ways::all) {
    copies.push_back(__builtin_cpu_supports("avx512f") ? by_wide_streaming : by_streaming);
    copies.push_back(by_one_instruction);
  }
#endif
  return copies;
}

// Each part is first written by the thread that handles it: there it lies where several processors have memory of their
// own.
void fill(const Floats& values, int threads) {
  on_own_cores(threads, [&](int i) { std::ranges::fill(values.part(i, threads), 1.0F); });
}

}  // namespace

double copy_bandwidth(Pages pages, Ways ways) {
  const int threads = loom::num_threads();
  const Floats from(pages), to(pages);
  fill(from, threads);
  fill(to, threads);
  double seconds = 1e9;
  for (const Copy copy : copies_of(ways))
    seconds = std::min(seconds, best_seconds(threads, [&](int i) {
                         copy(from.part(i, threads), to.part(i, threads));
                         benchmark::ClobberMemory();
                       }));
  return 2 * sizeof(float) * static_cast<double>(floats) / seconds;
}

double triad_bandwidth() {
  const int threads = loom::num_threads();
  const Floats x(Pages::usual), y(Pages::usual), to(Pages::usual);
  for (const Floats* const values : {&x, &y, &to}) fill(*values, threads);
  const double seconds = best_seconds(threads, [&](int i) {
    const std::span<const float> a = x.part(i, threads), b = y.part(i, threads);
    std::transform(a.begin(), a.end(), b.begin(), to.part(i, threads).begin(),
                   [](float p, float q) { return p + 0.5F * q; });
    benchmark::ClobberMemory();
  });
  return 3 * sizeof(float) * static_cast<double>(floats) / seconds;
}

}  // namespace bench
