// The loop that all elementwise kernels share.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <loom/accelerators/cpu/across.h>
#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/stream.h>

namespace loom::cpu {

// Elements handed to a kernel at a time: what it reads twice, it reads from L1.
inline constexpr int64_t stretch = 2048;
// The same where the output goes past the caches: shorter, so that memory writes while a kernel computes; and how many
// elements before a kernel reads them memory is asked for them.
inline constexpr int64_t short_stretch = 256, expected = 512;

// The elements where they are few and all lie as a kernel takes them, so that to find out how to walk over them costs
// more than they do; else 0.
template <size_t N>
int64_t few_ready(const std::array<const View*, N>& views, const std::array<DType, N>& compute) {
  const int64_t n = views[0]->numel();
  if (n > stretch) return 0;
  for (size_t k = 0; k < N; ++k)
    if (views[k]->dtype != compute[k] || !views[k]->is_contiguous()) return 0;
  return n;
}

// Calls kernel(y, {inputs ...}, n) with contiguous runs of the compute dtypes, n <= stretch, until all of the views are
// done. Operand 0 is the output. Runs that lie ready in memory are handed over as they are, others by way of L1.
template <size_t N, class Kernel>
void staged(const std::array<const View*, N>& views, const std::array<DType, N>& compute, int64_t grain,
            const Kernel& kernel) {
  if (const int64_t n = few_ready(views, compute); n > 0) {
    std::array<const void*, N - 1> inputs;
    for (size_t k = 0; k + 1 < N; ++k) inputs[k] = views[k + 1]->data;
    kernel(views[0]->data, inputs, n);
    return;
  }
  const Loop<N> loop(views);
  const auto item = static_cast<int64_t>(item_size(views[0]->dtype));
  const bool in_place = [&]<size_t... k>(std::index_sequence<k...>) {
    return ((loop.data()[0] == loop.data()[k + 1]) || ...);
  }(std::make_index_sequence<N - 1>());
  const bool large = loop.numel() * item >= stream_bytes && !in_place;
  if (const int across = dimension_across(loop, views); across >= 0) {
    const bool has_lines = loop.inner_extent() * item >= 256;  // a row of the output, for itself
    return staged_across(loop, across, views, compute, grain, large && has_lines, kernel);
  }
  // Past the caches, unless the output is an input, or one is walked backwards: that is slower so.
  const bool past = large && loop.contiguous(0, static_cast<size_t>(item)) && loop.forward();
  parallel_for(loop.numel(), grain, [&](int64_t begin, int64_t end) {
    Writer writer(views[0]->dtype, compute[0]);
    LineWriter<block * 8> lines;
    if (past) lines.start(loop.data()[0] + begin * item);
    [&]<size_t... k>(std::index_sequence<k...>) {
      std::array<Reader, N - 1> readers = {Reader(views[k + 1]->dtype, compute[k + 1])...};
      const bool direct = writer.direct(loop.inner_stride(0)) && (readers[k].direct(loop.inner_stride(k + 1)) && ...);
      const int64_t step = !direct ? block : past ? short_stretch : stretch, y_stride = loop.inner_stride(0);
      const int64_t ahead = direct && loop.inner_extent() >= expected ? expected : 0;
      loop.walk(begin, end, [&](const auto& p, int64_t length, const auto& next) {
        for (int64_t i = 0; i < length; i += step) {
          const int64_t n = std::min(step, length - i);
          char* const y = past ? lines.room() : p[0] + i * y_stride;
          const std::array<const void*, N - 1> inputs = {
              readers[k](p[k + 1] + i * loop.inner_stride(k + 1), loop.inner_stride(k + 1), n)...};
          kernel(writer.target(y, y_stride), inputs, n);
          writer.commit(y, y_stride, n);
          if (past) {
            const int64_t at = i + n + ahead;  // of this run, or of the next one
            const std::array<Expected, N - 1> soon = {
                readers[k].expected(at < length ? p[k + 1] + at * loop.inner_stride(k + 1)
                                                : next[k + 1] + (at - length) * loop.inner_stride(k + 1),
                                    loop.inner_stride(k + 1), n)...};
            lines.commit(n * item, soon);
          }
        }
      });
    }(std::make_index_sequence<N - 1>());
    if (past) lines.finish();
  });
}

}  // namespace loom::cpu
