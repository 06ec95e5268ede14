// SPDX-License-Identifier: Apache-2.0
// Large copies whose rows lie in one piece on both sides, in the same order or turned around: past the caches, a line
// at a time, and always up the addresses of x, as memory is faster to read that way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/shuffle.h>
#include <loom/accelerators/cpu/stream.h>

namespace loom::cpu {

namespace stream_detail {

inline constexpr int64_t line = 64, ahead = 2048;

inline int64_t past_line(const char* p) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p) % line); }

}  // namespace stream_detail

// y[0 .. n) = x[0 .. n); stream_fence() when all is written.
inline void stream_run(char* y, const char* x, int64_t n) {
  using namespace stream_detail;
  int64_t i = std::min(n, (line - past_line(y)) % line);
  std::memcpy(y, x, static_cast<size_t>(i));
  for (; i + line <= n; i += line) {
    __builtin_prefetch(x + i + ahead);
    for (int64_t j = 0; j < line; j += vector_bytes) stream(y + i + j, x + i + j);
  }
  std::memcpy(y + i, x + i, static_cast<size_t>(n - i));
}

// The same backwards: element 0 of x goes before y_end, the others before it. Bytes are counted here too.
template <class Bits>
void stream_backwards(char* y_end, const char* x, int64_t n) {
  using namespace stream_detail;
  constexpr auto item = static_cast<int64_t>(sizeof(Bits));
  int64_t i = 0;
  const auto move_to = [&](int64_t stop) {
    for (; i < stop; i += item) std::memcpy(y_end - i - item, x + i, sizeof(Bits));
  };
  move_to(std::min(n, past_line(y_end)));
  for (; i + line <= n; i += line) {
    __builtin_prefetch(x + i + ahead);
    for (int64_t j = i; j < i + line; j += vector_bytes) {
      Vec<Bits> v;
      std::memcpy(&v, x + j, sizeof(v));
      v = reversed(v);
      stream(y_end - j - vector_bytes, &v);
    }
  }
  move_to(n);
}

// y and x, of one shape, so that a walk goes up the addresses of x.
inline void turn_upwards(View& y, View& x) {
  for (int d = 0; d < x.rank(); ++d) {
    if (x.strides[d] >= 0 || x.shape[d] == 0) continue;
    for (View* const v : {&y, &x}) {
      v->data = v->as<char>() + (v->shape[d] - 1) * v->strides[d] * static_cast<int64_t>(item_size(v->dtype));
      v->strides[d] = -v->strides[d];
    }
  }
}

// Copies x to y, both of this dtype and large, if they are of such rows; false: they are not.
template <class Bits>
bool stream_rows(View y, View x) {
  constexpr int64_t shortest = 512, grain_bytes = int64_t{1} << 19;
  constexpr auto item = static_cast<int64_t>(sizeof(Bits));
  turn_upwards(y, x);
  const Loop<2> loop({&y, &x});
  const bool backwards = loop.inner_stride(0) == -item;
  if (loop.inner_extent() * item < shortest || loop.inner_stride(1) != item ||
      (!backwards && loop.inner_stride(0) != item))
    return false;
  parallel_for(loop.numel(), grain_bytes / item, [&](int64_t begin, int64_t end) {
    loop.walk(begin, end, [&](const auto& p, int64_t n) {
      if (backwards)
        stream_backwards<Bits>(p[0] + item, p[1], n * item);
      else
        stream_run(p[0], p[1], n * item);
    });
    stream_fence();
  });
  return true;
}

}  // namespace loom::cpu
