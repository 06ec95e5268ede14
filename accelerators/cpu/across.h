// SPDX-License-Identifier: Apache-2.0
// Elementwise work on inputs that lie across the output, as a transposed matrix does: they are turned over in L1, a
// block at a time, so that every line of theirs is read once.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/transpose.h>

namespace loom::cpu {

struct Block {
  static constexpr int64_t rows = 128, width = 128;  // elements, bytes: two lines
  alignas(64) char bytes[rows * width];
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

// As staged(), by blocks of some elements of the inner dimension and some of the one across.
template <size_t N, class Kernel>
void staged_across(const Loop<N>& loop, int across, const std::array<const View*, N>& views,
                   const std::array<DType, N>& compute, int64_t grain, const Kernel& kernel) {
  std::array<int64_t, N> item{};
  std::array<bool, N> turned{};
  for (size_t k = 0; k < N; ++k) {
    item[k] = static_cast<int64_t>(item_size(views[k]->dtype));
    turned[k] = k > 0 && loop.stride(k, across) == item[k] && loop.inner_stride(k) != item[k];
  }
  const int64_t width = Block::width / *std::max_element(item.begin() + 1, item.end()), inner = loop.inner_extent();
  const int64_t bands = (loop.extent(across) + width - 1) / width, outer = loop.numel() / (loop.extent(across) * inner);
  parallel_for(outer * bands, std::max<int64_t>(1, grain / (width * inner)), [&](int64_t begin, int64_t end) {
    Writer writer(views[0]->dtype, compute[0]);
    Block blocks[N - 1];
    [&]<size_t... k>(std::index_sequence<k...>) {
      std::array<Reader, N - 1> readers = {Reader(views[k + 1]->dtype, compute[k + 1])...};
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b % bands * width, columns = std::min(width, loop.extent(across) - first);
        auto at = loop.start_of(b / bands, across);
        for (size_t j = 0; j < N; ++j) at[j] += first * loop.stride(j, across);
        for (int64_t r = 0; r < inner; r += Block::rows) {
          const int64_t n = std::min(Block::rows, inner - r);
          for (size_t j = 1; j < N; ++j)
            if (turned[j])
              transpose_of(static_cast<size_t>(item[j]))(blocks[j - 1].bytes, Block::rows * item[j],
                                                         at[j] + r * loop.inner_stride(j), loop.inner_stride(j), n,
                                                         columns);
          for (int64_t c = 0; c < columns; ++c) {
            const auto input = [&](size_t j) {
              return turned[j] ? blocks[j - 1].bytes + c * Block::rows * item[j]
                               : at[j] + c * loop.stride(j, across) + r * loop.inner_stride(j);
            };
            char* const y = at[0] + c * loop.stride(0, across) + r * item[0];
            const std::array<const void*, N - 1> inputs = {
                readers[k](input(k + 1), turned[k + 1] ? item[k + 1] : loop.inner_stride(k + 1), n)...};
            kernel(writer.target(y, item[0]), inputs, n);
            writer.commit(y, item[0], n);
          }
        }
      }
    }(std::make_index_sequence<N - 1>());
  });
}

}  // namespace loom::cpu
