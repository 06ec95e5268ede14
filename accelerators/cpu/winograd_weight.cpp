// SPDX-License-Identifier: Apache-2.0
// The gradient of the weight: F(3x3, 4x4) and F(3x3, 2x2), with the tiles of x that the forward pass has. Products at
// the same position are summed over all tiles before 3 x 3 taps are made of them.
#include <algorithm>
#include <atomic>

#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/gemm_tile.h>
#include <loom/accelerators/cpu/winograd.h>
#include <loom/accelerators/cpu/winograd_transforms.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

using namespace winograd;

namespace {

constexpr int64_t taps = 9;

template <int side>
class WeightGradient {
 public:
  explicit WeightGradient(const ConvShape& shape)
      : s(shape),
        x_{s.channels, {s.height, s.width}, s.g.padding, {ceil_div(s.out_height, side), ceil_div(s.out_width, side)}},
        dy_{s.outputs, {s.out_height, s.out_width}, {0, 0}, x_.tiles},
        lines_(s.images * x_.tiles[0]),
        blocks_(ceil_div(s.outputs, panel)),
        parts_(ceil_div(s.channels, most_part)),
        part_(ceil_div(s.channels, parts_)),
        part_size_(positions<side> * plane()),
        together_(kept_together(blocks_ * parts_, part_size_)),
        set_(lines_at_a_time()),
        x_tiles_(positions<side>, s.channels, set_ * x_.tiles[1]),
        dy_tiles_(positions<side>, s.outputs, set_ * x_.tiles[1]) {}

  // Gives whether all of dw is finite.
  bool run(float* dw, const float* dy, const float* x) {
    const int64_t items = blocks_ * parts_;
    if (set_ == lines_ && lines_ * line() <= 2 * near &&
        items >= num_threads()) {  // an item's sums need not outlive it
      transform_tiles(dy, x, 0, lines_);
      parallel_for(items, 1, [&](int64_t begin, int64_t end) {
        const Scratch<float> sums(part_size_);
        for (int64_t i = begin; i < end; ++i) {
          for (int64_t position = 0; position < positions<side>; ++position)
            multiply(sums.data(), i, position, lines_, false);
          finish(dw, sums.data(), i);
        }
      });
      return finite_;
    }
    const Scratch<float> sums(together_ * part_size_);
    for (int64_t item = 0; item < items; item += together_)
      sum_items(dw, sums.data(), dy, x, item, std::min(together_, items - item));
    return finite_;
  }

 private:
  static constexpr int64_t near = 1 << 20;   // elements of transformed tiles
  static constexpr int64_t chain = 256;      // tiles added one to the other; more would cost digits
  static constexpr int64_t most_part = 112;  // channels whose sums with a block's stay in the second cache

  int64_t line() const { return positions<side> * (s.channels + s.outputs) * x_.tiles[1]; }  // of transformed tiles
  int64_t lines_at_a_time() const {
    const int64_t sums = together_ * part_size_;  // they are read and written for each set
    return std::clamp<int64_t>(std::max(near, sums / 2) / line(), 1, lines_);
  }

  // dw of `count` items, whose sums lie in `sums` meanwhile.
  void sum_items(float* dw, float* sums, const float* dy, const float* x, int64_t first_item, int64_t count) {
    for (int64_t first = 0; first < lines_; first += set_) {
      const int64_t last = std::min(lines_, first + set_);
      if (first_item == 0 || set_ < lines_) transform_tiles(dy, x, first, last);
      parallel_for(count * positions<side>, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t item = i % count;  // a position's tiles are read by one item after the other
          multiply(sums + item * part_size_, first_item + item, i / count, last - first, first > 0);
        }
      });
    }
    parallel_for(count, grain_of(part_size_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) finish(dw, sums + i * part_size_, first_item + i);
    });
  }

  // An item is a block of outputs with a part of the channels.
  int64_t block_of(int64_t item) const { return item / parts_; }
  int64_t first_of(int64_t item) const { return item % parts_ * part_; }
  int64_t channels_of(int64_t item) const { return std::min(part_, s.channels - first_of(item)); }
  int64_t outputs_of(int64_t item) const { return std::min(panel, s.outputs - block_of(item) * panel); }
  int64_t plane() const { return part_ * panel + apart; }  // of sums, from position to position

  void transform_tiles(const float* dy, const float* x, int64_t first, int64_t last) const {
    parallel_for(last - first, grain_of(line()), [&](int64_t begin, int64_t end) {
      const int64_t tile = begin * x_.tiles[1];
      Tiles<FromImage<side>>(x_).run(x_tiles_.memory.data() + tile * x_tiles_.row, x_tiles_.row, x_tiles_.plane, x,
                                     first + begin, first + end);
      Tiles<FromTerms<side, side>>(dy_).run(dy_tiles_.memory.data() + tile * dy_tiles_.row, dy_tiles_.row,
                                            dy_tiles_.plane, dy, first + begin, first + end);
    });
  }

  // sums [position][channel][width]: of an item's products at a position, over `lines` lines.
  void multiply(float* sums, int64_t item, int64_t position, int64_t lines, bool adds) const {
    const int64_t width = whole_vectors(outputs_of(item)), count = lines * x_.tiles[1], channels = channels_of(item);
    const int64_t height = ceil_div(channels, ceil_div(channels, tile_rows));
    for (int64_t from = 0; from < count; from += chain)
      for (int64_t c = 0; c < channels; c += height) {
        float* const to = sums + position * plane() + c * width;
        Tile<float, float> tile{
            .k = std::min(chain, count - from),
            .a = x_tiles_.memory.data() + position * x_tiles_.plane + from * x_tiles_.row + first_of(item) + c,
            .a_step = x_tiles_.row,
            .a_row = 1,
            .b = dy_tiles_.memory.data() + position * dy_tiles_.plane + from * dy_tiles_.row + block_of(item) * panel,
            .b_step = dy_tiles_.row,
            .c = to,
            .c_row = width,
            .columns = width,
            .end = {}};
        if (adds || from > 0) tile.end = {.from = 1, .base = to, .base_row = width};
        tile_kernel<float, float>(std::min(height, channels - c), width / n)(tile);
      }
  }

  // An item's dw.
  void finish(float* dw, const float* sums, int64_t item) {
    constexpr int64_t together = 16;  // channels
    alignas(64) float made[together * taps * panel];
    const int64_t outputs = outputs_of(item), width = whole_vectors(outputs), channels = channels_of(item);
    Finite finite;
    for (int64_t first = 0; first < channels; first += together) {
      const int64_t count = std::min(together, channels - first);
      for (int64_t c = 0; c < count; ++c)
        for (int64_t v = 0; v < width; v += n)
          taps_of(sums + (first + c) * width + v, made + c * taps * width + v, width, finite);
      turn(dw + (block_of(item) * panel * s.channels + first_of(item) + first) * taps, s.channels * taps, made, width,
           count * taps, outputs);
    }
    if (!finite) finite_ = false;
  }

  void taps_of(const float* m, float* to, int64_t width, Finite& finite) const {
    transform<ToTerms<side, 3>>(
        [&](int i, int j) __attribute__((always_inline)) { return load(m + ((side + 2) * i + j) * plane()); },
        [&](int i, int j, Vec<float> tap) __attribute__((always_inline)) {
          finite.note(tap);
          store(to + (3 * i + j) * width, tap);
        });
  }

  const ConvShape& s;
  Tiling x_, dy_;
  int64_t lines_;                     // of tiles
  int64_t blocks_;                    // of outputs
  int64_t parts_, part_, part_size_;  // of channels; part_size_: elements of an item's sums
  int64_t together_;                  // items whose sums are kept at a time
  int64_t set_;                       // lines that are transformed at a time
  Transformed x_tiles_, dy_tiles_;
  std::atomic<bool> finite_ = true;
};

}  // namespace

bool winograd_grad_weight(const ConvShape& s, float* dw, const float* dy, const float* x) {
  if (takes_four({s.out_height, s.out_width})) return WeightGradient<4>(s).run(dw, dy, x);
  return WeightGradient<2>(s).run(dw, dy, x);
}

}  // namespace loom::cpu
