// SPDX-License-Identifier: Apache-2.0
// Random words in vectors: what Philox::block gives, for many blocks at a time.
#pragma once

#include <array>
#include <cstdint>

#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/shuffle.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/philox.h>

namespace loom::cpu {

inline constexpr int64_t words = block;  // drawn at a time
using Words = std::array<uint32_t, words>;

// The words of a draw. A lane of 64 bits has a word in its low half; what is in the other half goes nowhere, for
// products are of the low halves.
class WordSource {
 public:
  explicit WordSource(const Philox& state) : offset_(state.offset), stream_(state.stream) {
    uint32_t k0 = static_cast<uint32_t>(state.seed), k1 = static_cast<uint32_t>(state.seed >> 32);
    for (int round = 0; round < rounds; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      keys_[round][0] = broadcast(uint64_t{k0});
      keys_[round][1] = broadcast(uint64_t{k1});
    }
  }
  // Those of consecutive blocks from `first` on.
  void operator()(Words& out, int64_t first) const;

  // Calls use(i, v) with vectors v of the words of `blocks` of them, v's first byte being byte i of all; for whole
  // turns.
  template <class Use>
  void each(int64_t first, int64_t blocks, const Use& use) const;

  static constexpr int64_t width = lanes<uint64_t>, chains = vector_registers / 4;  // products wait within a chain only
  static constexpr int64_t turn = chains * width;                                   // blocks

 private:
  using V = Vec<uint64_t>;
  static constexpr int rounds = 10;

  uint64_t offset_, stream_;
  V keys_[rounds][2];
};

template <class Use>
[[gnu::always_inline]] inline void WordSource::each(int64_t first, int64_t blocks, const Use& use) const {
  const V m0 = broadcast(uint64_t{0xD2511F53u}), m1 = broadcast(uint64_t{0xCD9E8D57u});
  V index;
  for (int64_t l = 0; l < width; ++l) index[l] = static_cast<uint64_t>(l);
  for (int64_t b = 0; b < blocks; b += turn) {
    V c0[chains], c1[chains], c2[chains], c3[chains];
#pragma GCC unroll 8
    for (int64_t c = 0; c < chains; ++c) {
      c0[c] = index + broadcast(offset_ + static_cast<uint64_t>(first + b + c * width));
      c1[c] = c0[c] >> 32;
      c2[c] = broadcast(stream_);
      c3[c] = c2[c] >> 32;
    }
#pragma GCC unroll 10
    for (int round = 0; round < rounds; ++round) {
      const V key0 = keys_[round][0], key1 = keys_[round][1];
#pragma GCC unroll 8
      for (int64_t c = 0; c < chains; ++c) {
        const V p0 = low_products(m0, c0[c]), p1 = low_products(m1, c2[c]);
        c0[c] = (p1 >> 32) ^ c1[c] ^ key0;
        c2[c] = (p0 >> 32) ^ c3[c] ^ key1;
        c1[c] = p1;
        c3[c] = p0;
      }
    }
    constexpr uint64_t low = 0xffffffffu;
#pragma GCC unroll 8
    for (int64_t c = 0; c < chains; ++c) {
      const V front = (c0[c] & low) | (c1[c] << 32), back = (c2[c] & low) | (c3[c] << 32);
      use(16 * (b + c * width), interleave_low(front, back));
      use(16 * (b + c * width) + vector_bytes, interleave_high(front, back));
    }
  }
}

// Never inlined: it needs all registers there are.
[[gnu::noinline]] inline void WordSource::operator()(Words& out, int64_t first) const {
  each(first, words / 4, [to = out.data()](int64_t i, V v) { store(to + i / 4, v); });
}

}  // namespace loom::cpu
