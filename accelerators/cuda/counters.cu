// Numbers in the device's memory that change from step to step: counted there, or told by the host.
#include <algorithm>
#include <array>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/launch.h>

namespace loom {

namespace {

using cuda::threads_per_block;

// What the parameters of one launch hold.
constexpr size_t most = 256;  // 2 KB

struct Numbers {
  std::array<int64_t*, most> at;
};
__global__ void __launch_bounds__(threads_per_block)
    advance_kernel(const __grid_constant__ Numbers numbers, int count, int64_t by, const float* skip) {
  if (skip != nullptr && *skip != 0) return;
  cuda::for_each_item(count, [&](int i) { *numbers.at[i] += by; });
}

struct Words {
  std::array<uint64_t, most> at;
};
__global__ void __launch_bounds__(threads_per_block)
    write_kernel(uint64_t* to, const __grid_constant__ Words words, int count) {
  cuda::for_each_item(count, [&](int i) { to[i] = words.at[i]; });
}

}  // namespace

void Cuda::advance(std::span<int64_t* const> numbers, int64_t by, const float* skip) {
  for (size_t begin = 0; begin < numbers.size(); begin += most) {
    const auto some = numbers.subspan(begin, std::min(most, numbers.size() - begin));
    Numbers table{};
    std::ranges::copy(some, table.at.begin());
    cuda::launch(gpu_, "advance", &advance_kernel, 1, threads_per_block, 0, table, static_cast<int>(some.size()), by,
                 skip);
  }
}

void Cuda::write_words(uint64_t* to, std::span<const uint64_t> words) {
  for (size_t begin = 0; begin < words.size(); begin += most) {
    const auto some = words.subspan(begin, std::min(most, words.size() - begin));
    Words table{};
    std::ranges::copy(some, table.at.begin());
    cuda::launch(gpu_, "write_words", &write_kernel, 1, threads_per_block, 0, to + begin, table,
                 static_cast<int>(some.size()));
  }
}

}  // namespace loom
