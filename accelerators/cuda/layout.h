// Where the elements of several views of one shape lie: dimensions collapsed on the host, divided by multiplication on
// the device. Kernels count in 32 bits; what is larger is cut into walks that are not.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/half.h>
#include <loom/accelerators/view.h>

namespace loom::cuda {

// n / d of numbers below 2^31 by a product's upper half (Granlund, Montgomery, PLDI 1994).
struct Divider {
  uint32_t factor = 1, shift = 0;
  Divider() = default;
  explicit Divider(uint32_t d) {
    while ((uint64_t{1} << shift) < d) ++shift;
    factor = static_cast<uint32_t>((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d) / d + 1);
  }
  LOOM_HOST_DEVICE uint32_t quotient(uint32_t n) const {
    return (static_cast<uint32_t>((uint64_t{n} * factor) >> 32) + n) >> shift;
  }
};

// Up to 2^31 - 1 elements of N operands, whose first ones lie at `data`.
template <size_t N>
struct Walk {
  static constexpr int max_rank = Dims::max_rank;
  std::array<char*, N> data{};
  uint32_t numel = 0;
  int rank = 0;
  std::array<uint32_t, max_rank> extents{};  // innermost first
  std::array<Divider, max_rank> dividers{};
  std::array<std::array<int64_t, N>, max_rank> strides{};  // in bytes

  // Byte offsets of element i.
  LOOM_HOST_DEVICE std::array<int64_t, N> offsets(uint32_t i) const {
    std::array<int64_t, N> out{};
    for (int d = 0; d < rank; ++d) {
      uint32_t position = i;
      if (d + 1 < rank) {
        const uint32_t rest = dividers[d].quotient(i);
        position = i - rest * extents[d];
        i = rest;
      }
      for (size_t k = 0; k < N; ++k) out[k] += static_cast<int64_t>(position) * strides[d][k];
    }
    return out;
  }
};

// Calls f(Walk<N>) for the views' elements, in one walk unless there are too many. Elements are numbered in the order
// of memory (any) or of the views (row_major); `first` is the number of a walk's first one.
template <size_t N, class F>
void for_each_walk(const std::array<const View*, N>& views, cpu::Order order, const F& f) {
  const cpu::Loop<N> loop(views, order);
  if (loop.numel() == 0) return;
  // Dimensions from `outer` on fit; those before it are counted here, the one at it in pieces.
  int outer = loop.rank();
  int64_t inner = 1;
  while (outer > 0 && inner * loop.extent(outer - 1) <= std::numeric_limits<int32_t>::max())
    inner *= loop.extent(--outer);
  const int64_t whole = outer > 0 ? loop.extent(outer - 1) : 1;
  const int64_t piece = outer > 0 ? std::numeric_limits<int32_t>::max() / inner : 1;
  Walk<N> walk;
  for (int i = loop.rank(); i-- > std::max(outer - 1, 0);) {
    const int d = walk.rank++;
    walk.extents[d] = static_cast<uint32_t>(i < outer ? piece : loop.extent(i));
    walk.dividers[d] = Divider(walk.extents[d]);
    for (size_t k = 0; k < N; ++k) walk.strides[d][k] = loop.stride(k, i);
  }
  int64_t outside = 1;
  for (int i = 0; i + 1 < outer; ++i) outside *= loop.extent(i);
  for (int64_t o = 0; o < outside; ++o)
    for (int64_t begin = 0; begin < whole; begin += piece) {
      const int64_t first = (o * whole + begin) * inner;
      walk.data = loop.at(first);
      walk.numel = static_cast<uint32_t>(std::min(piece, whole - begin) * inner);
      f(static_cast<const Walk<N>&>(walk), first);
    }
}

}  // namespace loom::cuda
