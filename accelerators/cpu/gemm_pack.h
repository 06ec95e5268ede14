// SPDX-License-Identifier: Apache-2.0
// Packing: part of an operand, read once with whatever strides it has, laid out as the tile's loop reads it.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <loom/accelerators/cpu/gemm_tile.h>

namespace loom::cpu {

// A line runs along k: a row of a or a column of b. Element p of line l lies at data[l * line_stride + p * step].
template <class S>
struct Lines {
  const S* data;
  int64_t line_stride, step;
};

namespace pack_detail {

inline constexpr int64_t lines_chunk = 8;  // steps at a time of lines that are neighbours in memory

template <int block, class V, int... lane>
[[gnu::always_inline]] inline void swap_blocks(V& a, V& b, std::integer_sequence<int, lane...>) {
  constexpr int n = sizeof...(lane);
  const V upper = __builtin_shufflevector(a, b, (lane & block ? n + lane - block : lane)...);
  b = __builtin_shufflevector(a, b, (lane & block ? n + lane : lane + block)...);
  a = upper;
}

// Transposes n vectors of n lanes: blocks of `block` lanes are swapped across the diagonal, for ever larger blocks.
template <int block = 1, class V, int n>
[[gnu::always_inline]] inline void transpose(V (&v)[n]) {
  if constexpr (block < n) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i)
      if ((i & block) == 0) swap_blocks<block>(v[i], v[i + block], std::make_integer_sequence<int, n>());
    transpose<block * 2>(v);
  }
}

// lanes<T> steps of a line that is contiguous along k; zeros after the first `count` elements (a pair is two of them).
template <class E, class S>
[[gnu::always_inline]] inline Vec<SumOf<E>> steps_of(const S* from, int64_t count) {
  constexpr int full = lanes<SumOf<E>> * (is_pair<E> ? 2 : 1);
  if constexpr (is_pair<E>)
    return load_first_pairs(from, std::min<int64_t>(count, full));
  else
    return count >= full ? load(from) : load_first(from, count);
}

// One step (for pairs: from this row and `next`) of lanes<T> lines that are neighbours in memory.
template <bool all, class E, class S>
[[gnu::always_inline]] inline Vec<SumOf<E>> lines_at(const S* from, const S* next, int64_t count) {
  const auto get = [&](const S* p) __attribute__((always_inline)) { return all ? load(p) : load_first(p, count); };
  if constexpr (is_pair<E>) {
    const Vec<float> high = next != nullptr ? get(next) : Vec<float>{};
    return (Vec<float>)((Vec<uint32_t>)get(from) >> 16 | (Vec<uint32_t>)high);
  } else {
    return get(from);
  }
}

template <class E, class S>
void pack_along_k(E* to, int64_t width, const Lines<S>& from, int64_t lines, int64_t k) {
  using T = SumOf<E>;
  constexpr int n = lanes<T>, per_step = is_pair<E> ? 2 : 1;
  for (int64_t p = 0; p < k; p += n * per_step) {
    const int64_t steps = std::min<int64_t>(n, (k - p + per_step - 1) / per_step);
    Vec<T> block[n];
#pragma GCC unroll 16
    for (int l = 0; l < n; ++l)
      block[l] = l < lines ? steps_of<E>(from.data + l * from.line_stride + p, k - p) : Vec<T>{};
    transpose(block);
    if (steps == n) {
#pragma GCC unroll 16
      for (int s = 0; s < n; ++s) std::memcpy(to + s * width, &block[s], sizeof(block[s]));
    } else {
      for (int64_t s = 0; s < steps; ++s) std::memcpy(to + s * width, &block[s], sizeof(block[s]));
    }
    to += n * width;
  }
}

template <bool all, class E, class S>
void pack_along_lines(E* to, int64_t width, const Lines<S>& from, int64_t lines, int64_t k) {
  constexpr int per_step = is_pair<E> ? 2 : 1;
  const S* at = from.data;
  for (int64_t p = 0; p < k; p += per_step) {
    const Vec<SumOf<E>> v = lines_at<all, E>(at, p + 1 < k ? at + from.step : nullptr, lines);
    std::memcpy(to, &v, sizeof(v));
    for (int64_t s = 0; s < per_step; ++s)  // rows far apart: no prefetcher of the processor follows
      __builtin_prefetch(at + (2 * lines_chunk + s) * from.step);
    at += per_step * from.step;
    to += width;
  }
}

template <class E, class S>
void pack_scattered(E* to, int64_t width, const Lines<S>& from, int64_t lines, int64_t k) {
  constexpr int n = lanes<SumOf<E>>, per_step = is_pair<E> ? 2 : 1;
  for (int64_t p = 0; p < k; p += per_step, to += width) {
    std::memset(static_cast<void*>(to), 0, n * sizeof(E));
    for (int64_t l = 0; l < lines; ++l) {
      const S* const at = from.data + l * from.line_stride + p * from.step;
      if constexpr (is_pair<E>)
        to[l] = {at[0].bits | (p + 1 < k ? static_cast<uint32_t>(at[from.step].bits) << 16 : 0)};
      else
        to[l] = static_cast<E>(*at);
    }
  }
}

template <class E, class S>
void pack_panel(E* to, int64_t width, const Lines<S>& from, int64_t lines, int64_t readable, int64_t k) {
  constexpr int64_t n = lanes<SumOf<E>>;
  for (int64_t first = (lines - 1) / n * n; first >= 0; first -= n) {  // downwards: what spills over is overwritten
    const Lines<S> some{from.data + first * from.line_stride, from.line_stride, from.step};
    const int64_t count = std::min(n, lines - first);
    if (from.step == 1)
      pack_along_k(to + first, width, some, count, k);
    else if (from.line_stride != 1)
      pack_scattered(to + first, width, some, count, k);
    else if (readable - first >= n)
      pack_along_lines<true>(to + first, width, some, count, k);
    else
      pack_along_lines<false>(to + first, width, some, count, k);
  }
}

}  // namespace pack_detail

// A row of panels, each of `width` lines and `stride` elements from the next: to[p * width + l] is element p of the
// panel's line l, for k elements of `lines` lines in all, converted to E. Lines are written in whole vectors, so that a
// panel needs room for a vector beyond its last step; lines that the last panel lacks are zero up to a whole vector, or
// whatever they are of the `readable` lines that there are.
template <class E, class S>
void pack(E* to, int64_t width, int64_t stride, const Lines<S>& from, int64_t lines, int64_t k, int64_t readable = 0) {
  // Neighbouring lines share cache lines and pages: they are read together, a few steps at a time.
  const int64_t chunk = from.step == 1 ? k : pack_detail::lines_chunk;
  for (int64_t p = 0; p < k; p += chunk) {
    E* panel = to + p / (is_pair<E> ? 2 : 1) * width;
    for (int64_t l = 0; l < lines; l += width, panel += stride) {
      const Lines<S> some{from.data + l * from.line_stride + p * from.step, from.line_stride, from.step};
      pack_detail::pack_panel(panel, width, some, std::min(width, lines - l), std::max(lines, readable) - l,
                              std::min(chunk, k - p));
    }
  }
}

// The same lines, contiguous along k, one after the other: to[l * stride + p]. Cheaper than panels where a tile's
// elements are broadcast one by one anyway. Whole vectors are written, zeros past the end.
template <class E, class S>
void copy_lines(E* to, int64_t stride, const S* from, int64_t line_stride, int64_t lines, int64_t k) {
  constexpr int64_t n = lanes<SumOf<E>>, per_step = is_pair<E> ? 2 : 1;
  for (int64_t l = 0; l < lines; ++l, to += stride, from += line_stride)
    for (int64_t p = 0; p < k; p += n * per_step) {
      const auto steps = pack_detail::steps_of<E>(from + p, k - p);
      std::memcpy(static_cast<void*>(to + p / per_step), &steps, sizeof(steps));
    }
}

// What packing these lines will read, asked for with `slots` rows of tiles, of which `done` are over.
template <class S>
Ahead ahead_of(const Lines<S>& from, int64_t lines, int64_t k, int64_t slots, int64_t done) {
  constexpr int64_t item = sizeof(S), two_lines = 128;
  const bool along_k = from.step == 1;
  if ((!along_k && from.line_stride != 1) || lines <= 0 || k <= 0) return {};
  const int64_t runs = along_k ? lines : k, bytes = (along_k ? k : lines) * item;
  const int64_t run_step = (along_k ? from.line_stride : from.step) * item;
  const char* const data = reinterpret_cast<const char*>(from.data);
  if (slots < runs) {
    if (bytes > two_lines) return {};
    const int64_t places = (runs + slots - 1) / slots;
    return {data + done * places * run_step, places * run_step, 0, 1, places, run_step, bytes - 1, false};
  }
  const int64_t places = (bytes + two_lines - 1) / two_lines, parts = std::min(slots / runs, places);
  return {data + done / parts * run_step,
          run_step,
          done % parts,
          parts,
          (places + parts - 1) / parts,
          two_lines,
          std::min<int64_t>(bytes - 1, two_lines / 2),
          false};
}

}  // namespace loom::cpu
