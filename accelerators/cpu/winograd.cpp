// SPDX-License-Identifier: Apache-2.0
// The forward pass, and with roles changed the gradient of x.
#include <algorithm>
#include <atomic>

#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/gemm_tile.h>
#include <loom/accelerators/cpu/winograd.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

using namespace winograd;

namespace {

constexpr int64_t taps = 9;
constexpr int64_t worth = 400'000;  // operations for which a thread is woken

struct Correlated {
  Tiling tiling;  // of what is read
  int64_t images, channels;
  std::array<int64_t, 2> out;

  int64_t lines() const { return images * tiling.tiles[0]; }
  int64_t blocks() const { return ceil_div(channels, panel); }
  int64_t channels_of(int64_t block) const { return std::min(panel, channels - block * panel); }
  int64_t block_size() const { return positions * tiling.channels * panel; }  // of transformed weights
  int64_t cost_of_line() const { return 2 * positions * tiling.channels * channels * tiling.tiles[1]; }
};

Correlated correlated(int64_t images, int64_t in, int64_t out, const std::array<int64_t, 2>& image,
                      const std::array<int64_t, 2>& result, const std::array<int64_t, 2>& padding) {
  return {{in, image, padding, {ceil_div(result[0], side), ceil_div(result[1], side)}}, images, out, result};
}

// The taps of a channel, transformed: 16 positions, `step` apart.
[[gnu::always_inline]] inline void transform_taps(const Vec<float> (&g)[taps], float* to, int64_t step) {
  const Vec<float> half = broadcast(0.5F);
  const auto along = [&](Vec<float> a, Vec<float> b, Vec<float> c, Vec<float>(&result)[4])
      __attribute__((always_inline)) {
    const Vec<float> ends = (a + c) * half, middle = b * half;
    result[0] = a;
    result[1] = ends + middle;
    result[2] = ends - middle;
    result[3] = c;
  };
  Vec<float> columns[3][4];
#pragma GCC unroll 3
  for (int j = 0; j < 3; ++j) along(g[j], g[3 + j], g[6 + j], columns[j]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    Vec<float> row[4];
    along(columns[0][i], columns[1][i], columns[2][i], row);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) store(to + (4 * i + j) * step, row[j]);
  }
}

// The weights of a block of outputs, as [position][channel][width].
struct Weights {
  const Correlated& c;
  const float* w;
  bool turned;  // the gradient of x: w has the channels that are read first, and the kernel is turned by 180 degrees

  void transform(int64_t block, float* to) const {
    constexpr int64_t together = 16;  // channels
    const int64_t channels = c.channels_of(block), width = whole_vectors(channels), in = c.tiling.channels;
    const Scratch<float> taken(together * taps * width);
    std::fill_n(taken.data(), together * taps * width, 0.0F);
    for (int64_t first = 0; first < in; first += together) {
      const int64_t count = std::min(together, in - first);
      take(taken.data(), block, first, count, width);
      for (int64_t k = 0; k < count; ++k)
        for (int64_t v = 0; v < width; v += n) {
          Vec<float> g[taps];
#pragma GCC unroll 9
          for (int64_t t = 0; t < taps; ++t)
            g[t] = load(taken.data() + (k * taps + (turned ? taps - 1 - t : t)) * width + v);
          transform_taps(g, to + (first + k) * width + v, in * width);
        }
    }
  }

 private:
  // [channel][tap][width]
  void take(float* to, int64_t block, int64_t first, int64_t count, int64_t width) const {
    const int64_t channels = c.channels_of(block), in = c.tiling.channels;
    if (!turned) return turn(to, width, w + (block * panel * in + first) * taps, in * taps, channels, count * taps);
    for (int64_t k = 0; k < count; ++k) {
      const float* const from = w + ((first + k) * c.channels + block * panel) * taps;
      // The line behind the last one too: a vector's load waits for it, though under a mask.
      for (int64_t i = 0; i <= channels * taps; i += 16) __builtin_prefetch(from + 12 * c.channels * taps + i);
      turn(to + k * taps * width, width, from, taps, channels, taps);
    }
  }
};

// Products of some lines' transformed tiles with a block's weights, and the outputs made of them.
class Outputs {
 public:
  Outputs(const Correlated& shape, int64_t lines)
      : c(shape),
        plane_(lines * shape.tiling.tiles[1] * panel + apart),
        most_(std::clamp<int64_t>(cached / (side * shape.out[1] * panel), 1, shape.tiling.tiles[0])),
        products_(positions * plane_),
        pixels_(most_ * side * shape.out[1] * panel) {}

  // Gives whether all of them are finite.
  bool run(float* y, const Transformed& tiles, const float* weights, const float* bias, int64_t block, int64_t first,
           int64_t last) const {
    const int64_t channels = c.channels_of(block), width = whole_vectors(channels);
    multiply(tiles, weights, width, (last - first) * c.tiling.tiles[1]);
    alignas(64) float b[panel] = {};
    if (bias != nullptr) std::copy_n(bias + block * panel, channels, b);
    Finite finite;
    for (int64_t at = first; at < last;) {
      const int64_t image = at / c.tiling.tiles[0], tile_row = at % c.tiling.tiles[0];
      const int64_t lines = std::min({most_, last - at, c.tiling.tiles[0] - tile_row});
      for (int64_t i = 0; i < lines; ++i)
        for (int64_t v = 0; v < width; v += n)
          line(i * side, tile_row + i, (at - first + i) * c.tiling.tiles[1], width, v, load(b + v), finite);
      const int64_t rows = std::min(lines * side, c.out[0] - tile_row * side), out_plane = c.out[0] * c.out[1];
      turn(y + (image * c.channels + block * panel) * out_plane + tile_row * side * c.out[1], out_plane, pixels_.data(),
           width, rows * c.out[1], channels);
      at += lines;
    }
    return static_cast<bool>(finite);
  }

 private:
  static constexpr int64_t cached = 16 << 10;

  void multiply(const Transformed& tiles, const float* weights, int64_t width, int64_t count) const {
    const int64_t height = ceil_div(count, ceil_div(count, tile_rows)), k = c.tiling.channels;
    for (int64_t position = 0; position < positions; ++position)
      for (int64_t i = 0; i < count; i += height)
        tile_kernel<float, float>(std::min(height, count - i),
                                  width / n)({.k = k,
                                              .a = tiles.memory.data() + position * tiles.plane + i * tiles.row,
                                              .a_step = 1,
                                              .a_row = tiles.row,
                                              .b = weights + position * k * width,
                                              .b_step = width,
                                              .c = products_.data() + position * plane_ + i * width,
                                              .c_row = width,
                                              .columns = width,
                                              .end = {}});
  }

  // Two rows of outputs, to pixels_ from row `to` on.
  void line(int64_t to, int64_t tile_row, int64_t first_tile, int64_t width, int64_t v, Vec<float> bias,
            Finite& finite) const {
    const bool second = tile_row * side + 1 < c.out[0];
    const float* m = products_.data() + first_tile * width + v;
    float* at = pixels_.data() + to * c.out[1] * width + v;
    for (int64_t column = 0; column < c.out[1]; column += side, m += width, at += side * width) {
      Vec<float> rows[2][4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const auto product = [&](int i) __attribute__((always_inline)) { return load(m + (4 * i + j) * plane_); };
        const Vec<float> a = product(1), b = product(2);
        rows[0][j] = product(0) + (a + b);
        rows[1][j] = (a - b) - product(3);
      }
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const Vec<float> left = rows[i][0] + (rows[i][1] + rows[i][2]) + bias,
                         right = (rows[i][1] - rows[i][2]) - rows[i][3] + bias;
        if (i == 1 && !second) break;
        finite.note(left);
        store(at + i * c.out[1] * width, left);
        if (column + 1 == c.out[1]) continue;
        finite.note(right);
        store(at + i * c.out[1] * width + width, right);
      }
    }
  }

  const Correlated& c;
  int64_t plane_, most_;
  Scratch<float> products_, pixels_;
};

// Sets of lines, whose transformed tiles stay in the second cache, meet all weights, transformed before.
bool set_by_set(const Correlated& c, const Weights& weights, int64_t set, float* y, const float* x, const float* bias) {
  const Scratch<float> all(c.blocks() * c.block_size());
  parallel_for(c.blocks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) weights.transform(block, all.data() + block * c.block_size());
  });
  std::atomic<bool> finite = true;
  parallel_for(ceil_div(c.lines(), set), grain_of(set * c.cost_of_line(), worth), [&](int64_t begin, int64_t end) {
    const Transformed tiles(c.tiling.channels, set * c.tiling.tiles[1]);
    const Tiles<4> transformation(c.tiling);
    const Outputs outputs(c, set);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * set, last = std::min(c.lines(), first + set);
      transformation.run(tiles.memory.data(), tiles.row, tiles.plane, x, first, last);
      for (int64_t block = 0; block < c.blocks(); ++block)
        if (!outputs.run(y, tiles, all.data() + block * c.block_size(), bias, block, first, last)) finite = false;
    }
  });
  return finite;
}

// All tiles meet one block's weights after the other.
bool block_by_block(const Correlated& c, const Weights& weights, float* y, const float* x, const float* bias) {
  const Transformed tiles(c.tiling.channels, c.lines() * c.tiling.tiles[1]);
  parallel_for(c.lines(), grain_of(c.tiling.tiles[1] * c.tiling.channels * positions), [&](int64_t begin, int64_t end) {
    Tiles<4>(c.tiling).run(tiles.memory.data() + begin * c.tiling.tiles[1] * tiles.row, tiles.row, tiles.plane, x,
                           begin, end);
  });
  std::atomic<bool> finite = true;
  parallel_for(c.blocks(), grain_of(c.lines() * c.cost_of_line() / c.blocks(), worth), [&](int64_t begin, int64_t end) {
    const Scratch<float> block_weights(c.block_size());
    const Outputs outputs(c, c.lines());
    for (int64_t block = begin; block < end; ++block) {
      weights.transform(block, block_weights.data());
      if (!outputs.run(y, tiles, block_weights.data(), bias, block, 0, c.lines())) finite = false;
    }
  });
  return finite;
}

bool correlate(const Correlated& c, const Weights& weights, float* y, const float* x, const float* bias) {
  constexpr int64_t near = 128 << 10, few = 1 << 20;  // elements of transformed tiles
  const int64_t line = positions * c.tiling.channels * c.tiling.tiles[1];
  if (line * c.lines() <= few) return block_by_block(c, weights, y, x, bias);
  const int64_t fair = ceil_div(c.lines(), num_threads());
  return set_by_set(c, weights, std::clamp<int64_t>(near / line, 1, fair), y, x, bias);
}

}  // namespace

bool suits_winograd(const ConvShape& s) {
  constexpr std::array<int64_t, 2> one{1, 1};
  constexpr int64_t channels = 32, pixels = 128;  // fewer do not pay for the transformations
  return s.kernel_h == 3 && s.kernel_w == 3 && s.g.stride == one && s.g.dilation == one && s.groups == 1 &&
         s.channels >= channels && s.outputs >= channels && s.images * s.out_plane() >= pixels && s.g.padding[0] <= 2 &&
         s.g.padding[1] <= 2;
}

bool winograd_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias) {
  const Correlated c =
      correlated(s.images, s.channels, s.outputs, {s.height, s.width}, {s.out_height, s.out_width}, s.g.padding);
  return correlate(c, {c, w, false}, y, x, bias);
}

bool winograd_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w) {
  const Correlated c = correlated(s.images, s.outputs, s.channels, {s.out_height, s.out_width}, {s.height, s.width},
                                  {2 - s.g.padding[0], 2 - s.g.padding[1]});
  return correlate(c, {c, w, true}, dx, dy, nullptr);
}

}  // namespace loom::cpu
