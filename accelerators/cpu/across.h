// SPDX-License-Identifier: Apache-2.0
// Elementwise work on inputs that lie across the output, as a transposed matrix does: they are turned over in L1, a
// block at a time, so that every line of theirs is read once.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <loom/accelerators/cpu/band_writer.h>
#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/transpose.h>

namespace loom::cpu {

// What is turned over at a time. Rows of the input are columns of the output.
struct Block {
  static constexpr int64_t most_rows = 512, width = 128;  // elements, bytes: two lines
  static constexpr int64_t rows(int64_t item) { return std::min<int64_t>(most_rows, 2048 / item); }
  // Bytes from a row of what was turned over to the next: a line more than its elements, as rows a power of two apart
  // share few places of a cache.
  static constexpr int64_t stride(int64_t item) { return rows(item) * item + 64; }
  alignas(64) char bytes[width * (most_rows + 64)];
};

// The outer dimension along which some input is dense that is not dense along the inner one, where the output is; -1:
// there is none, or it is not worth it.
template <size_t N>
int dimension_across(const Loop<N>& loop, const std::array<const View*, N>& views) {
  constexpr int64_t least = 16;
  if (!loop.dense(0, item_size(views[0]->dtype)) || loop.inner_extent() < least) return -1;
  for (size_t k = 1; k < N; ++k) {
    const auto item = static_cast<int64_t>(item_size(views[k]->dtype));
    if (loop.inner_stride(k) == 0 || loop.inner_stride(k) == item) continue;
    for (int i = 0; i < loop.rank() - 1; ++i)
      if (loop.stride(k, i) == item && loop.extent(i) >= least) return i;
  }
  return -1;
}

// The lines of n bytes from x on are wanted soon, but not at once: into the second cache, as there are too many of them
// for the first. Always inlined: g++ would take a function like it for one without effect, and drop its calls.
[[gnu::always_inline]] inline void expect_far(const char* x, int64_t n) {
  const char* const first = x - reinterpret_cast<uintptr_t>(x) % 64;
  for (int64_t i = 0; i < x + n - first; i += 64) __builtin_prefetch(first + i, 0, 2);
}

// Some columns of the dimension across, at one position of the dimensions outside of it and the inner one.
template <size_t N>
struct Band {
  typename Loop<N>::Pointers at{};
  std::array<int64_t, N> down, along;  // bytes from a row to the next (the inner dimension), from a column to the next
  std::array<int64_t, N> item;
  std::array<bool, N> turned;
  int64_t rows, columns, block_rows;
  bool expected, past;  // memory is asked for what comes next; the output goes past the caches

  Band(const Loop<N>& loop, int across, const std::array<const View*, N>& views, bool goes_past)
      : rows(loop.inner_extent()), past(goes_past) {
    constexpr int64_t in_cache = int64_t{8} << 20;  // bytes of the output
    for (size_t k = 0; k < N; ++k) {
      item[k] = static_cast<int64_t>(item_size(views[k]->dtype));
      down[k] = loop.inner_stride(k);
      along[k] = loop.stride(k, across);
      turned[k] = k > 0 && along[k] == item[k] && down[k] != item[k];
    }
    const int64_t widest = *std::max_element(item.begin() + 1, item.end());
    columns = Block::width / widest;  // at most
    block_rows = Block::rows(widest);
    expected = loop.numel() * item[0] > in_cache;
  }
  char* address(size_t k, int64_t r, int64_t c) const { return at[k] + r * down[k] + c * along[k]; }
};

// Turns `rows` rows of input k from r on over; those `ahead` of the ones at work are asked for.
template <size_t N>
void turn_over(Block& block, const Band<N>& band, size_t k, int64_t r, int64_t rows) {
  constexpr int64_t ahead = 64;
  const int64_t item = band.item[k], columns = band.columns, step = band.expected ? ahead : rows;
  const TransposeBlock transpose = transpose_of(static_cast<size_t>(item));
  for (int64_t i = 0; i < rows; i += step) {
    const int64_t n = std::min(step, rows - i);
    if (band.expected)
      for (int64_t j = r + i + ahead; j < std::min(r + i + ahead + n, band.rows); ++j)
        expect_far(band.address(k, j, 0), columns * item);
    transpose(block.bytes + i * item, Block::stride(item), band.address(k, r + i, 0), band.down[k], n, columns);
  }
}

// Asks for what the column `ahead` of c will read where it lies, of `rows` rows from r on or of the block after them.
template <size_t N>
[[gnu::always_inline]] inline void expect_column(const Band<N>& band, int64_t r, int64_t rows, int64_t c) {
  constexpr int64_t ahead = 4;
  c += ahead;
  if (c >= band.columns) {
    c -= band.columns;
    r += rows;
  }
  rows = std::min(rows, band.rows - r);
  for (size_t k = 1; k < N; ++k)
    if (band.down[k] == band.item[k]) expect_far(band.address(k, r, c), rows * band.item[k]);
}

template <size_t N>
class AcrossWorker {
 public:
  AcrossWorker(const std::array<const View*, N>& views, const std::array<DType, N>& compute)
      : AcrossWorker(views, compute, std::make_index_sequence<N - 1>()) {}

  template <class Kernel>
  void operator()(const Band<N>& band, const Kernel& kernel) {
    for (int64_t c = 0; band.past && c < band.columns; ++c) lines_.start(c, band.address(0, 0, c));
    for (int64_t r = 0; r < band.rows; r += band.block_rows) {
      const int64_t n = std::min(band.block_rows, band.rows - r);
      for (size_t k = 1; k < N; ++k)
        if (band.turned[k]) turn_over(blocks_[k - 1], band, k, r, n);
      for (int64_t c = 0; c < band.columns; ++c) {
        if (band.expected) expect_column(band, r, n, c);
        column(band, r, n, c, kernel, std::make_index_sequence<N - 1>());
      }
    }
    for (int64_t c = 0; band.past && c < band.columns; ++c) lines_.finish(c, band.address(0, band.rows, c));
  }

 private:
  template <size_t... k>
  AcrossWorker(const std::array<const View*, N>& views, const std::array<DType, N>& compute, std::index_sequence<k...>)
      : writer_(views[0]->dtype, compute[0]), readers_{Reader(views[k + 1]->dtype, compute[k + 1])...} {}

  template <class Kernel, size_t... k>
  void column(const Band<N>& band, int64_t r, int64_t n, int64_t c, const Kernel& kernel, std::index_sequence<k...>) {
    const auto input = [&](size_t j) {
      return band.turned[j] ? blocks_[j - 1].bytes + c * Block::stride(band.item[j]) : band.address(j, r, c);
    };
    char* const y = band.address(0, r, c);
    char* const to = band.past ? lines_.room(c) : y;
    const std::array<const void*, N - 1> inputs = {
        readers_[k](input(k + 1), band.turned[k + 1] ? band.item[k + 1] : band.down[k + 1], n)...};
    kernel(writer_.target(to, band.item[0]), inputs, n);
    writer_.commit(to, band.item[0], n);
    if (band.past) lines_.commit(c, y, n * band.item[0]);
  }

  Writer writer_;
  std::array<Reader, N - 1> readers_;
  Block blocks_[N - 1];
  BandWriter<Block::width, Block::most_rows * 8> lines_;
};

// As staged(), by blocks of some elements of the inner dimension and some of the one across. past: the output goes past
// the caches.
template <size_t N, class Kernel>
void staged_across(const Loop<N>& loop, int across, const std::array<const View*, N>& views,
                   const std::array<DType, N>& compute, int64_t grain, bool past, const Kernel& kernel) {
  const Band<N> whole(loop, across, views, past);
  const int64_t width = whole.columns, extent = loop.extent(across), bands = (extent + width - 1) / width;
  const int64_t positions = loop.numel() / (extent * whole.rows);
  const auto work = [&](int64_t begin, int64_t end) {
    AcrossWorker<N> worker(views, compute);
    Band<N> band = whole;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b % bands * width;
      band.columns = std::min(width, extent - first);
      band.at = loop.start_of(b / bands, across);
      for (size_t k = 0; k < N; ++k) band.at[k] += first * band.along[k];
      worker(band, kernel);
    }
    if (past) stream_fence();
  };
  parallel_for(positions * bands, std::max<int64_t>(1, grain / (width * whole.rows)), work);
}

}  // namespace loom::cpu
