// Philox words by the hundred.
#pragma once

#include <array>
#include <cstdint>

#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/philox.h>

namespace loom::cpu {

inline constexpr int64_t words = block;  // drawn at a time
using Words = std::array<uint32_t, words>;

// Words of consecutive blocks from `first` on: Philox::block, with the lanes of vectors over the blocks.
inline void draw_words(Words& out, const Philox& state, int64_t first) {
  constexpr size_t lanes = 16;
  using Lanes = std::array<uint32_t, lanes>;
  for (size_t b = 0; b < words / 4; b += lanes) {
    Lanes c0, c1, c2, c3;
    for (size_t l = 0; l < lanes; ++l) {
      const uint64_t position = state.offset + static_cast<uint64_t>(first) + b + l;
      c0[l] = static_cast<uint32_t>(position);
      c1[l] = static_cast<uint32_t>(position >> 32);
      c2[l] = static_cast<uint32_t>(state.stream);
      c3[l] = static_cast<uint32_t>(state.stream >> 32);
    }
    uint32_t k0 = static_cast<uint32_t>(state.seed), k1 = static_cast<uint32_t>(state.seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
      for (size_t l = 0; l < lanes; ++l) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * c0[l], p1 = uint64_t{0xCD9E8D57u} * c2[l];
        c0[l] = static_cast<uint32_t>(p1 >> 32) ^ c1[l] ^ k0;
        c2[l] = static_cast<uint32_t>(p0 >> 32) ^ c3[l] ^ k1;
        c1[l] = static_cast<uint32_t>(p1);
        c3[l] = static_cast<uint32_t>(p0);
      }
    for (size_t l = 0; l < lanes; ++l) {
      const size_t at = 4 * (b + l);
      out[at] = c0[l];
      out[at + 1] = c1[l];
      out[at + 2] = c2[l];
      out[at + 3] = c3[l];
    }
  }
}

}  // namespace loom::cpu
