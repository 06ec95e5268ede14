// SPDX-License-Identifier: Apache-2.0
// Packing: part of an operand, read once with whatever strides it has, laid out as the tile's loop reads it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include <loom/accelerators/cpu/gemm_tile.h>
#include <loom/accelerators/cpu/transpose.h>

namespace loom::cpu {

// A line runs along k: a row of a or a column of b. Element p of line l lies at data[l * line_stride + p * step].
template <class S>
struct Lines {
  const S* data;
  int64_t line_stride, step;
};

namespace pack_detail {

inline constexpr int64_t lines_chunk = 8;  // steps at a time of lines that are neighbours in memory

// Every other part of two vectors, from the first on or the second.
template <bool odd, class V, int... lane>
[[gnu::always_inline]] inline V every_other_part(V a, V b, std::integer_sequence<int, lane...>) {
  constexpr int in_part = transpose_detail::part_bytes / static_cast<int>(sizeof(V{}[0]));
  return __builtin_shufflevector(a, b, ((2 * (lane / in_part) + odd) * in_part + lane % in_part)...);
}

// Transposes n vectors of n lanes: first within parts, of as many vectors as a part has lanes, then whole parts.
template <class V, int n>
[[gnu::always_inline]] inline void transpose(V (&v)[n]) {
  constexpr int in_part = transpose_detail::part_bytes / static_cast<int>(sizeof(V{}[0])), half = in_part / 2;
  constexpr auto every = std::make_integer_sequence<int, n>();
  V next[n];
#pragma GCC unroll 2
  for (int stage = 1; stage < in_part; stage *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      const int from = i / half * in_part + i % half;
      next[2 * i] = transpose_detail::interleave_parts(v[from], v[from + half], false, every);
      next[2 * i + 1] = transpose_detail::interleave_parts(v[from], v[from + half], true, every);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) v[i] = next[i];
  }
#pragma GCC unroll 2
  for (int apart = in_part; apart < n; apart *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i)
      next[i] = (i & apart) == 0 ? every_other_part<false>(v[i], v[i + apart], every)
                                 : every_other_part<true>(v[i - apart], v[i], every);
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) v[i] = next[i];
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

template <bool all, class E, class S>
void pack_along_k(E* to, int64_t width, const Lines<S>& from, int64_t lines, int64_t k) {
  using T = SumOf<E>;
  constexpr int n = lanes<T>, per_step = is_pair<E> ? 2 : 1;
  const auto block = [&](int64_t p) __attribute__((always_inline)) {
    std::array<Vec<T>, n> made;
    Vec<T> v[n];
#pragma GCC unroll 16
    for (int l = 0; l < n; ++l)
      v[l] = all || l < lines ? steps_of<E>(from.data + l * from.line_stride + p, k - p) : Vec<T>{};
    transpose(v);
#pragma GCC unroll 16
    for (int l = 0; l < n; ++l) made[l] = v[l];
    return made;
  };
  int64_t p = 0;
  for (; p + (n - 1) * per_step < k; p += n * per_step, to += n * width) {
    const auto made = block(p);
#pragma GCC unroll 16
    for (int s = 0; s < n; ++s) std::memcpy(to + s * width, &made[s], sizeof(made[s]));
  }
  if (p >= k) return;
  const auto made = block(p);  // of which some are used: they go through memory
  for (int64_t s = 0; s < (k - p + per_step - 1) / per_step; ++s)
    std::memcpy(to + s * width, &made[static_cast<size_t>(s)], sizeof(Vec<T>));
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

// Elements of two rows of V by turns, from lane `first` on.
template <int first, class V, int... lane>
[[gnu::always_inline]] inline V by_turns(V a, V b, std::integer_sequence<int, lane...>) {
  constexpr int n = sizeof...(lane);
  return __builtin_shufflevector(a, b, (lane % 2 * n + first + lane / 2)...);
}

// Pairs of 2 * lanes<float> lines that are neighbours in memory, of which the first `count` may be read.
template <bool all, class S>
void pack_pairs_along_lines(BFloat16Pair* to, int64_t width, const Lines<S>& from, int64_t count, int64_t k) {
  constexpr int n = lanes<float>;
  constexpr auto every = std::make_integer_sequence<int, 2 * n>();
  using Row = Vec<uint16_t>;
  const auto get = [&](const S* p) __attribute__((always_inline)) {
    return (Row)load_first_pairs(p, all ? 2 * n : count);
  };
  const S* at = from.data;
  for (int64_t p = 0; p < k; p += 2, at += 2 * from.step, to += width) {
    const Row row = get(at), next = p + 1 < k ? get(at + from.step) : Row{};
    const Row low = by_turns<0>(row, next, every), high = by_turns<n>(row, next, every);
    std::memcpy(to, &low, sizeof(low));
    std::memcpy(to + n, &high, sizeof(high));
    prefetch(at + 2 * lines_chunk * from.step);
    prefetch(at + (2 * lines_chunk + 1) * from.step);
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
  if constexpr (is_pair<E>)
    if (from.line_stride == 1 && from.step != 1 && lines > n && width == 2 * n)
      return readable >= 2 * n ? pack_pairs_along_lines<true>(to, width, from, lines, k)
                               : pack_pairs_along_lines<false>(to, width, from, lines, k);
  for (int64_t first = (lines - 1) / n * n; first >= 0; first -= n) {  // downwards: what spills over is overwritten
    const Lines<S> some{from.data + first * from.line_stride, from.line_stride, from.step};
    const int64_t count = std::min(n, lines - first);
    if (from.step == 1)
      count == n ? pack_along_k<true>(to + first, width, some, count, k)
                 : pack_along_k<false>(to + first, width, some, count, k);
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
