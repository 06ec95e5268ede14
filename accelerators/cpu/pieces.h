// Many arrays as one range.
#pragma once

#include <algorithm>
#include <span>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

// Calls f(piece, begin, end) for ranges of all pieces' elements; threads share all elements, however they are spread
// over pieces.
template <class F>
void over_pieces(std::span<const UpdatePiece> pieces, const F& f) {
  int64_t total = 0;
  for (const UpdatePiece& piece : pieces) total += piece.numel;
  parallel_for(total, grain / 4, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // of a piece, among all elements
    for (const UpdatePiece& piece : pieces) {
      const int64_t from = std::max(begin, first) - first, to = std::min(end - first, piece.numel);
      if (from < to) f(piece, from, to);
      first += piece.numel;
      if (first >= end) return;
    }
  });
}

}  // namespace loom::cpu
