// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2,
// 3", SC'11). Element i of a draw is a pure function of (seed, stream, offset, i): the same bits on every device.
#pragma once

#include <array>
#include <cstdint>

#include <loom/accelerators/half.h>

namespace loom {

// One draw of random numbers: key (seed) and counter (offset in units of 4 x 32 bits, stream).
struct Philox {
  uint64_t seed = 0;
  uint64_t stream = 0;  // 0: the same on every rank; r + 1: belongs to data rank r
  uint64_t offset = 0;
  // Null, or three words in the device's memory: the seed that counts, and what stream and offset are added to. A
  // captured graph draws other numbers at each replay by them (tensor/device_graph.h).
  const uint64_t* base = nullptr;

  // Where the words are: what they say.
  LOOM_HOST_DEVICE Philox resolved() const {
    return base == nullptr ? *this : Philox{base[0], base[1] + stream, base[2] + offset};
  }

  // The 4 words of block `index` of this draw.
  LOOM_HOST_DEVICE std::array<uint32_t, 4> block(uint64_t index) const {
    const uint64_t position = offset + index;
    uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32);
    uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
      const auto n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
      const auto n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
  }
};

// [0, 1) with 24 and 53 bits.
LOOM_HOST_DEVICE inline float to_uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }
LOOM_HOST_DEVICE inline double to_uniform(uint32_t low, uint32_t high) {
  return static_cast<double>(((static_cast<uint64_t>(high) << 32) | low) >> 11) * 0x1p-53;
}

}  // namespace loom
