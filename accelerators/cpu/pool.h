// SPDX-License-Identifier: Apache-2.0
// What the pooling kernels share: planes, dense [N * C, H, W], and windows over them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

struct Planes {
  int64_t count, height, width, out_height, out_width;
  Planes(const Dims& x, const Dims& y)
      : count(x[0] * x[1]), height(x[2]), width(x[3]), out_height(y[2]), out_width(y[3]) {}
  int64_t size() const { return height * width; }
  int64_t out_size() const { return out_height * out_width; }
  template <class F>
  void for_each(int64_t taps, const F& f) const {
    parallel_for(count, grain_of(size() + out_size() * taps), [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) f(p);
    });
  }
};

// What one window covers along one side: the positions begin, begin + step, ... < end of one window along one side that
// lie in the input; `span` counts the window's extent within input and padding, which is what count_include_pad divides
// by.
struct Window {
  int64_t begin, end, span;
  Window(const PoolGeometry& g, int side, int64_t out, int64_t extent) {
    const auto s = static_cast<size_t>(side);
    const int64_t from = out * g.stride[s] - g.padding[s], step = g.dilation[s];
    const int64_t to = std::min(from + (g.kernel[s] - 1) * step + 1, extent + g.padding[s]);
    span = to - from;
    begin = from >= 0 ? from : from + (-from + step - 1) / step * step;
    end = std::min(to, extent);
  }
  int64_t inside() const { return std::max<int64_t>(end - begin, 0); }
};

// The windows of all outputs along each side, which every plane shares.
struct Windows {
  std::vector<Window> rows, columns;
  Windows(const Planes& p, const PoolGeometry& g) {
    for (int64_t oh = 0; oh < p.out_height; ++oh) rows.emplace_back(g, 0, oh, p.height);
    for (int64_t ow = 0; ow < p.out_width; ++ow) columns.emplace_back(g, 1, ow, p.width);
  }
};

}  // namespace loom::cpu
