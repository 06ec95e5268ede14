// SPDX-License-Identifier: Apache-2.0
// Sorting by unsigned keys, some bits at a time from the low end: stable, and no comparison to be guessed wrong.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <utility>

#include <loom/accelerators/cpu/scratch.h>

namespace loom::cpu {

// Orders up to `longest` < 2^32 keys at a time. What moves is a word: 32 bits of the key above its position. Of wider
// keys these are the highest that differ at all, and what they leave equal is ordered by the others.
template <class Key>
class RadixSort {
 public:
  static int64_t position(uint64_t word) { return static_cast<int64_t>(word & 0xffffffffu); }

  explicit RadixSort(int64_t longest) : words_(longest), other_(longest) {}

  // The keys in their order: position(result[i]) of each.
  const uint64_t* operator()(const Key* keys, int64_t n) {
    Key varying = 0;
    for (int64_t i = 0; i < n; ++i) varying |= keys[i] ^ keys[0];
    const int low = varying == 0 ? 0 : std::countr_zero(varying), high = std::bit_width(varying);
    const int shift = std::max(low, high - 32), bits = high - std::min(shift, high);
    uint64_t* const words = words_.data();
    for (int64_t i = 0; i < n; ++i) words[i] = static_cast<uint64_t>(keys[i] >> shift) << 32 | static_cast<uint64_t>(i);
    if (bits > 0) sort_bits(bits, n);
    if (shift > low) order_equal(keys, n);
    return words_.data();
  }

 private:
  static constexpr int most_digit = 10, most_passes = 4;  // the ends of more lists would not stay in L1
  using Counts = std::array<uint32_t, 1 << most_digit>;

  // Bits [32, 32 + bits) of the words.
  void sort_bits(int bits, int64_t n) {
    const int longest = n < 8192 ? 8 : most_digit, passes = (bits + longest - 1) / longest;
    const int digit = (bits + passes - 1) / passes, size = 1 << digit;
    const auto mask = static_cast<uint64_t>(size - 1);
    Counts counts[most_passes];
    for (int p = 0; p < passes; ++p) std::fill_n(counts[p].begin(), size, 0);
    for (const uint64_t* w = words_.data(); w != words_.data() + n; ++w)
      for (int p = 0; p < passes; ++p) ++counts[p][*w >> (32 + p * digit) & mask];
    for (int p = 0; p < passes; ++p) {
      if (counts[p][words_.data()[0] >> (32 + p * digit) & mask] == n) continue;  // all are alike here
      uint32_t start = 0;
      for (int i = 0; i < size; ++i) start += std::exchange(counts[p][static_cast<size_t>(i)], start);
      scatter(counts[p], 32 + p * digit, mask, n);
    }
  }

  void scatter(Counts& places, int shift, uint64_t mask, int64_t n) {
    const uint64_t* const from = words_.data();
    uint64_t* const to = other_.data();
    for (int64_t i = 0; i < n; ++i) to[places[from[i] >> shift & mask]++] = from[i];
    std::swap(words_, other_);
  }

  // Runs that the words' keys leave equal, by all bits of the keys.
  void order_equal(const Key* keys, int64_t n) {
    uint64_t *const begin = words_.data(), *const end = begin + n;
    for (uint64_t *run = begin, *stop = begin; run != end; run = stop) {
      while (stop != end && *stop >> 32 == *run >> 32) ++stop;
      if (stop - run > 64)
        order_long(keys, run, stop - run);
      else if (stop - run > 1)  // the words differ by position
        std::sort(run, stop, [=](uint64_t a, uint64_t b) {
          const Key of_a = keys[position(a)], of_b = keys[position(b)];
          return of_a != of_b ? of_a < of_b : a < b;
        });
    }
  }

  // At most 32 bits of these differ.
  static void order_long(const Key* keys, uint64_t* run, int64_t n) {
    const Scratch<Key> part(n);
    const Scratch<uint64_t> given(n);
    std::copy_n(run, n, given.data());
    for (int64_t i = 0; i < n; ++i) part.data()[i] = keys[position(run[i])];
    RadixSort sort(n);
    const uint64_t* const order = sort(part.data(), n);
    for (int64_t i = 0; i < n; ++i) run[i] = given.data()[position(order[i])];
  }

  Scratch<uint64_t> words_, other_;
};

}  // namespace loom::cpu
