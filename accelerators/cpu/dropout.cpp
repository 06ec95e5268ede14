// SPDX-License-Identifier: Apache-2.0
// Dropout and its gradient: numbers are drawn, compared and multiplied in one pass, and a byte an element is kept.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <type_traits>

#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/cpu/words.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// Calls f(y, x, mask, first, n) with pieces of dense arrays of n elements, y and x in the compute type.
template <class S, class Mask, class F>
void for_pieces(const View& y, const View& x, Mask* mask, const F& f) {
  const DenseInput<S> in(x);
  const DenseOutput<S> out(y);
  const int64_t n = y.numel(), pieces = (n + words - 1) / words;
  parallel_for(pieces, 8, [&](int64_t begin, int64_t end) {
    RowSource<S> source(words);
    RowTarget<S> target(n, words);
    for (int64_t i = begin * words; i < std::min(n, end * words); i += words) {
      const int64_t count = std::min(words, n - i), next = std::min(words, n - i - count);
      const std::array soon = {Expected(in.data() + i + count, next * static_cast<int64_t>(sizeof(S)))};
      f(target.begin(out.data() + i), source(in.data() + i, count), mask + i, i, count);
      target.end(out.data() + i, count, soon);
    }
  });
  out.store();
}

// The first n numbers of a draw that are below `below`, as 1, and the others, as 0.
void compare(uint8_t* __restrict kept, const uint32_t* __restrict w, uint32_t below, int64_t n) {
  for (int64_t i = 0; i < n; ++i) kept[i] = (w[i] >> 8) < below ? 1 : 0;
}

// y = x * (kept ? factor : 0), from the numbers themselves: a mask of bits, since g++ makes no vectors of a choice
// here.
template <class T>
void scale_below(T* __restrict y, const T* __restrict x, const uint32_t* __restrict w, uint32_t below, T factor,
                 int64_t n) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const auto bits = std::bit_cast<Bits>(factor);
  for (int64_t i = 0; i < n; ++i)
    y[i] = x[i] * std::bit_cast<T>(bits & (Bits{0} - static_cast<Bits>((w[i] >> 8) < below)));
}

// The same, from what was kept of them.
template <class T>
void scale(T* __restrict y, const T* __restrict x, const uint8_t* __restrict kept, T factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * (static_cast<T>(kept[i]) * factor);
}

}  // namespace

void Cpu::dropout(const View& y, const View& mask, const View& x, double keep, double factor, const Philox& state) {
  with_floating("dropout", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    // Of the 24 bits that make a number in [0, 1); as a float, for the same mask as a draw of Random::bernoulli.
    const auto below = static_cast<uint32_t>(std::ceil(static_cast<double>(static_cast<float>(keep)) * 0x1p24));
    for_pieces<S>(y, x, mask.as<uint8_t>(), [&](T* to, const T* from, uint8_t* kept, int64_t first, int64_t n) {
      alignas(64) Words w;
      draw_words(w, state, first / 4);
      compare(kept, w.data(), below, n);
      scale_below(to, from, w.data(), below, static_cast<T>(factor), n);
    });
  });
}

void Cpu::dropout_grad(const View& dx, const View& g, const View& mask, double factor) {
  with_floating("dropout", g.dtype, [&]<class S> {
    using T = compute_type<S>;
    for_pieces<S>(dx, g, mask.as<const uint8_t>(), [&](T* to, const T* from, const uint8_t* kept, int64_t, int64_t n) {
      scale(to, from, kept, static_cast<T>(factor), n);
    });
  });
}

}  // namespace loom
