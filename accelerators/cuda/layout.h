// Where the elements of several views of one shape lie: dimensions collapsed on the host, divided by multiplication on the
// device.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include <loom/accelerators/half.h>
#include <loom/accelerators/loop.h>

namespace loom::cuda {

// n / d and n % d of 32-bit numbers by a product's upper half (Granlund, Montgomery, PLDI 1994); n below 2^31.
struct Divider {
  uint32_t divisor = 1, factor = 0, shift = 0;
  Divider() = default;
  explicit Divider(uint32_t d) : divisor(d) {
    while (shift < 32 && (uint64_t{1} << shift) < d) ++shift;
    factor = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d)) / d + 1);
  }
  LOOM_HOST_DEVICE uint32_t quotient(uint32_t n) const {
    const auto high = static_cast<uint32_t>((uint64_t{n} * factor) >> 32);
    return (high + n) >> shift;
  }
};

// Byte offsets of element i of the walk in N operands. Index: uint32_t where it and all offsets fit, else uint64_t.
template <int N, class Index>
struct Layout {
  int rank = 0;
  std::array<Index, Dims::max_rank> extents{};  // innermost first
  std::array<Divider, Dims::max_rank> dividers{};
  std::array<std::array<int64_t, N>, Dims::max_rank> strides{};

  LOOM_HOST_DEVICE std::array<int64_t, N> offsets(Index i) const {
    std::array<int64_t, N> out{};
    for (int d = 0; d < rank; ++d) {
      Index position = i;
      if (d + 1 < rank) {
        Index rest;
        if constexpr (sizeof(Index) == 4)
          rest = dividers[d].quotient(i);
        else
          rest = i / extents[d];
        position = i - rest * extents[d];
        i = rest;
      }
      for (int k = 0; k < N; ++k) out[k] += static_cast<int64_t>(position) * strides[d][k];
    }
    return out;
  }
};

template <int N, class Index>
Layout<N, Index> layout_of(const Loop<N>& loop) {
  Layout<N, Index> out;
  out.rank = loop.rank();
  for (int d = 0; d < out.rank; ++d) {
    const int from = out.rank - 1 - d;
    out.extents[d] = static_cast<Index>(loop.extent(from));
    if constexpr (sizeof(Index) == 4) out.dividers[d] = Divider(static_cast<uint32_t>(loop.extent(from)));
    for (size_t k = 0; k < N; ++k) out.strides[d][k] = loop.stride(k, from);
  }
  return out;
}

// Whether a walk over so many elements can count in 32 bits (31 for the divisions).
inline bool fits_32_bits(int64_t numel) { return numel <= std::numeric_limits<int32_t>::max(); }

}  // namespace loom::cuda
