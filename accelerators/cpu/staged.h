// The loop that all elementwise kernels share.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/loop.h>

namespace loom::cpu {

// Calls kernel(y, {inputs ...}, n) with contiguous runs of the compute dtypes until all of the views are done. Operand
// 0 is the output. Runs that lie ready in memory are handed over whole, others a block at a time.
template <size_t N, class Kernel>
void staged(const std::array<const View*, N>& views, const std::array<DType, N>& compute, int64_t grain,
            const Kernel& kernel) {
  const Loop<N> loop(views);
  parallel_for(loop.numel(), grain, [&](int64_t begin, int64_t end) {
    Writer writer(views[0]->dtype, compute[0]);
    [&]<size_t... k>(std::index_sequence<k...>) {
      std::array<Reader, N - 1> readers = {Reader(views[k + 1]->dtype, compute[k + 1])...};
      const bool direct = writer.direct(loop.inner_stride(0)) && (readers[k].direct(loop.inner_stride(k + 1)) && ...);
      loop.walk(begin, end, [&](const auto& p, int64_t length) {
        const int64_t step = direct ? length : block;
        for (int64_t i = 0; i < length; i += step) {
          const int64_t n = std::min(step, length - i), y_stride = loop.inner_stride(0);
          char* const y = p[0] + i * y_stride;
          const std::array<const void*, N - 1> inputs = {
              readers[k](p[k + 1] + i * loop.inner_stride(k + 1), loop.inner_stride(k + 1), n)...};
          kernel(writer.target(y, y_stride), inputs, n);
          writer.commit(y, y_stride, n);
        }
      });
    }(std::make_index_sequence<N - 1>());
  });
}

}  // namespace loom::cpu
