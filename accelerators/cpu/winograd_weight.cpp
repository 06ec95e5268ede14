// SPDX-License-Identifier: Apache-2.0
// The gradient of the weight: F(3x3, 2x2), with the tiles of x that the forward pass has. Products at the same position
// are summed over all tiles before 3 x 3 taps are made of them.
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

class WeightGradient {
 public:
  explicit WeightGradient(const ConvShape& shape)
      : s(shape),
        x_{s.channels, {s.height, s.width}, s.g.padding, {ceil_div(s.out_height, side), ceil_div(s.out_width, side)}},
        dy_{s.outputs, {s.out_height, s.out_width}, {0, 0}, x_.tiles},
        lines_(s.images * x_.tiles[0]),
        set_(std::clamp<int64_t>(near / (positions * (s.channels + s.outputs) * x_.tiles[1]), 1, lines_)),
        blocks_(ceil_div(s.outputs, panel)),
        block_size_(positions * s.channels * panel),
        x_tiles_(s.channels, set_ * x_.tiles[1]),
        dy_tiles_(s.outputs, set_ * x_.tiles[1]) {}

  // Gives whether all of dw is finite.
  bool run(float* dw, const float* dy, const float* x) {
    if (set_ == lines_ && blocks_ >= num_threads()) {  // a block's sums need not outlive it
      transform(dy, x, 0, lines_);
      parallel_for(blocks_, 1, [&](int64_t begin, int64_t end) {
        const Scratch<float> sums(block_size_);
        for (int64_t block = begin; block < end; ++block) {
          for (int64_t position = 0; position < positions; ++position)
            multiply(sums.data(), block, position, lines_, false);
          finish(dw, sums.data(), block, 0, s.channels);
        }
      });
      return finite_;
    }
    const Scratch<float> sums(blocks_ * block_size_);
    for (int64_t first = 0; first < lines_; first += set_) {
      const int64_t last = std::min(lines_, first + set_);
      transform(dy, x, first, last);
      parallel_for(blocks_ * positions, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          multiply(sums.data() + i / positions * block_size_, i / positions, i % positions, last - first, first > 0);
      });
    }
    constexpr int64_t some = 32;  // channels
    const int64_t parts = ceil_div(s.channels, some);
    parallel_for(blocks_ * parts, grain_of(some * panel * positions), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t block = i / parts, c = i % parts * some;
        finish(dw, sums.data() + block * block_size_, block, c, std::min(s.channels, c + some));
      }
    });
    return finite_;
  }

 private:
  static constexpr int64_t near = 1 << 20;  // elements of transformed tiles
  static constexpr int64_t chain = 256;     // tiles added one to the other; more would cost digits

  int64_t width_of(int64_t block) const { return whole_vectors(std::min(panel, s.outputs - block * panel)); }

  void transform(const float* dy, const float* x, int64_t first, int64_t last) const {
    const int64_t cost = positions * (s.channels + s.outputs) * x_.tiles[1];
    parallel_for(last - first, grain_of(cost), [&](int64_t begin, int64_t end) {
      const int64_t tile = begin * x_.tiles[1];
      Tiles<4>(x_).run(x_tiles_.memory.data() + tile * x_tiles_.row, x_tiles_.row, x_tiles_.plane, x, first + begin,
                       first + end);
      Tiles<2>(dy_).run(dy_tiles_.memory.data() + tile * dy_tiles_.row, dy_tiles_.row, dy_tiles_.plane, dy,
                        first + begin, first + end);
    });
  }

  // sums [position][channel][width]: of a block's products at a position, over `lines` lines.
  void multiply(float* sums, int64_t block, int64_t position, int64_t lines, bool adds) const {
    const int64_t width = width_of(block), count = lines * x_.tiles[1];
    const int64_t height = ceil_div(s.channels, ceil_div(s.channels, tile_rows));
    for (int64_t from = 0; from < count; from += chain)
      for (int64_t c = 0; c < s.channels; c += height) {
        float* const to = sums + (position * s.channels + c) * width;
        Tile<float, float> tile{
            .k = std::min(chain, count - from),
            .a = x_tiles_.memory.data() + position * x_tiles_.plane + from * x_tiles_.row + c,
            .a_step = x_tiles_.row,
            .a_row = 1,
            .b = dy_tiles_.memory.data() + position * dy_tiles_.plane + from * dy_tiles_.row + block * panel,
            .b_step = dy_tiles_.row,
            .c = to,
            .c_row = width,
            .columns = width,
            .end = {}};
        if (adds || from > 0) tile.end = {.from = 1, .base = to, .base_row = width};
        tile_kernel<float, float>(std::min(height, s.channels - c), width / n)(tile);
      }
  }

  // dw of channels [begin, end) and a block of outputs.
  void finish(float* dw, const float* sums, int64_t block, int64_t begin, int64_t end) {
    constexpr int64_t together = 16;  // channels
    alignas(64) float made[together * taps * panel];
    const int64_t width = width_of(block), step = s.channels * width;
    Finite finite;
    for (int64_t first = begin; first < end; first += together) {
      const int64_t count = std::min(together, end - first);
      for (int64_t c = 0; c < count; ++c)
        for (int64_t v = 0; v < width; v += n)
          taps_of(sums + (first + c) * width + v, step, made + c * taps * width + v, width, finite);
      turn(dw + (block * panel * s.channels + first) * taps, s.channels * taps, made, width, count * taps,
           std::min(panel, s.outputs - block * panel));
    }
    if (!finite) finite_ = false;
  }

  [[gnu::always_inline]] static void taps_of(const float* m, int64_t step, float* to, int64_t width, Finite& finite) {
    Vec<float> rows[3][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const auto product = [&](int i) __attribute__((always_inline)) { return load(m + (4 * i + j) * step); };
      const Vec<float> a = product(1), b = product(2), both = a + b;
      rows[0][j] = product(0) + both;
      rows[1][j] = a - b;
      rows[2][j] = both - product(3);
    }
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const Vec<float> both = rows[i][1] + rows[i][2];
      const Vec<float> left = rows[i][0] + both, middle = rows[i][1] - rows[i][2], right = both - rows[i][3];
      finite.note(left);
      finite.note(middle);
      finite.note(right);
      store(to + 3 * i * width, left);
      store(to + (3 * i + 1) * width, middle);
      store(to + (3 * i + 2) * width, right);
    }
  }

  const ConvShape& s;
  Tiling x_, dy_;
  int64_t lines_, set_;  // of tiles; set_: as many as are transformed at a time
  int64_t blocks_, block_size_;
  Transformed x_tiles_, dy_tiles_;
  std::atomic<bool> finite_ = true;
};

}  // namespace

bool winograd_grad_weight(const ConvShape& s, float* dw, const float* dy, const float* x) {
  return WeightGradient(s).run(dw, dy, x);
}

}  // namespace loom::cpu
