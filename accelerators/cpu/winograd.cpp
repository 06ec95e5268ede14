// SPDX-License-Identifier: Apache-2.0
// The forward pass, and with roles changed the gradient of x.
#include <algorithm>
#include <atomic>

#include <loom/accelerators/cpu.h>
#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/gemm_tile.h>
#include <loom/accelerators/cpu/winograd.h>
#include <loom/accelerators/cpu/winograd_transforms.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

using namespace winograd;

namespace {

constexpr int64_t taps = 9;
constexpr int64_t worth = 400'000;  // operations for which a thread is woken

// What is correlated: images [images][in][image] with 3 x 3 taps.
struct Extents {
  int64_t images, in, out;
  std::array<int64_t, 2> image, result, padding;
};

template <int side>
struct Correlated {
  Tiling tiling;  // of what is read
  int64_t images, channels;
  std::array<int64_t, 2> out;
  int64_t parts, depth;  // channels that are read are taken in parts, whose weights stay in the second cache

  explicit Correlated(const Extents& e)
      : tiling{e.in, e.image, e.padding, {ceil_div(e.result[0], side), ceil_div(e.result[1], side)}},
        images(e.images),
        channels(e.out),
        out(e.result),
        parts(ceil_div(e.in, most_depth)),
        depth(ceil_div(e.in, parts)) {}

  int64_t lines() const { return images * tiling.tiles[0]; }
  int64_t blocks() const { return ceil_div(channels, panel); }
  int64_t channels_of(int64_t block) const { return std::min(panel, channels - block * panel); }
  int64_t depth_of(int64_t part) const { return std::min(depth, tiling.channels - part * depth); }
  int64_t weights_plane() const { return depth * panel + apart; }  // from position to position
  int64_t part_size() const { return positions<side> * weights_plane(); }
  int64_t block_size() const { return parts * part_size(); }  // of transformed weights
  int64_t cost_of_line() const { return 2 * positions<side> * tiling.channels * channels * tiling.tiles[1]; }

 private:
  static constexpr int64_t most_depth = side == 2 ? 512 : 256;
};

// The weights of a block of outputs and a part of the channels, as [position][channel][width].
template <int side>
struct Weights {
  const Correlated<side>& c;
  const float* w;
  bool turned;  // the gradient of x: w has the channels that are read first, and the kernel is turned by 180 degrees

  void transform(int64_t block, int64_t part, float* to) const {
    constexpr int64_t together = 16;  // channels
    const int64_t channels = c.channels_of(block), width = whole_vectors(channels), depth = c.depth_of(part);
    const Scratch<float> taken(together * taps * width);
    std::fill_n(taken.data(), together * taps * width, 0.0F);
    for (int64_t first = 0; first < depth; first += together) {
      const int64_t count = std::min(together, depth - first);
      take(taken.data(), block, part * c.depth + first, count, width);
      for (int64_t k = 0; k < count; ++k)
        for (int64_t v = 0; v < width; v += n)
          transform_taps(taken.data() + k * taps * width + v, width, to + (first + k) * width + v);
    }
  }

 private:
  // The taps of a channel: `step` apart.
  void transform_taps(const float* from, int64_t step, float* to) const {
    winograd::transform<FromTerms<side, 3>>(
        [&](int i, int j) __attribute__((always_inline)) {
          const int64_t tap = 3 * i + j;
          return load(from + (turned ? taps - 1 - tap : tap) * step);
        },
        [&](int i, int j, Vec<float> v)
            __attribute__((always_inline)) { store(to + ((side + 2) * i + j) * c.weights_plane(), v); });
  }

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
template <int side>
class Outputs {
 public:
  Outputs(const Correlated<side>& shape, int64_t lines)
      : c(shape),
        plane_(lines * shape.tiling.tiles[1] * panel + apart),
        most_(std::clamp<int64_t>(cached / (side * shape.out[1] * panel), 1, shape.tiling.tiles[0])),
        products_(positions<side> * plane_),
        pixels_(most_ * side * shape.out[1] * panel) {}

  // Adds the products of a part of the channels to those of the parts before.
  void multiply(const Transformed& tiles, const float* weights, int64_t block, int64_t part, int64_t lines) const {
    const int64_t count = lines * c.tiling.tiles[1], height = ceil_div(count, ceil_div(count, tile_rows));
    const int64_t width = whole_vectors(c.channels_of(block));
    for (int64_t position = 0; position < positions<side>; ++position)
      for (int64_t i = 0; i < count; i += height) {
        float* const to = products_.data() + position * plane_ + i * width;
        Tile<float, float> tile{.k = c.depth_of(part),
                                .a = tiles.memory.data() + position * tiles.plane + i * tiles.row + part * c.depth,
                                .a_step = 1,
                                .a_row = tiles.row,
                                .b = weights + position * c.weights_plane(),
                                .b_step = width,
                                .c = to,
                                .c_row = width,
                                .columns = width,
                                .end = {}};
        if (part > 0) tile.end = {.from = 1, .base = to, .base_row = width};
        tile_kernel<float, float>(std::min(height, count - i), width / n)(tile);
      }
  }

  // The outputs of lines [first, last); gives whether all of them are finite.
  bool finish(float* y, const float* bias, int64_t block, int64_t first, int64_t last) const {
    const int64_t channels = c.channels_of(block), width = whole_vectors(channels);
    alignas(64) float b[panel] = {};
    if (bias != nullptr) std::copy_n(bias + block * panel, channels, b);
    Finite finite;
    for (int64_t at = first; at < last;) {
      const int64_t image = at / c.tiling.tiles[0], tile_row = at % c.tiling.tiles[0];
      const int64_t lines = std::min({most_, last - at, c.tiling.tiles[0] - tile_row});
      const int64_t rows = std::min(lines * side, c.out[0] - tile_row * side), out_plane = c.out[0] * c.out[1];
      float* const to = y + (image * c.channels + block * panel) * out_plane + tile_row * side * c.out[1];
      for (int64_t i = 0; i < lines; ++i)
        for (int64_t v = 0; v < width; v += n)
          line(i * side, tile_row + i, (at - first + i) * c.tiling.tiles[1], width, v, load(b + v), finite,
               to + v * out_plane + i * side * c.out[1]);
      turn(to, out_plane, pixels_.data(), width, rows * c.out[1], channels);
      at += lines;
    }
    return static_cast<bool>(finite);
  }

 private:
  static constexpr int64_t cached = 16 << 10;

  // `side` rows of outputs, to pixels_ from row `to` on; meanwhile the place in y comes where they go then.
  void line(int64_t to, int64_t tile_row, int64_t first_tile, int64_t width, int64_t v, Vec<float> bias, Finite& finite,
            const float* in_y) const {
    const int64_t rows = c.out[0] - tile_row * side;
    const float* m = products_.data() + first_tile * width + v;
    float* at = pixels_.data() + to * c.out[1] * width + v;
    for (int64_t column = 0; column < c.out[1]; column += side, m += width, at += side * width) {
      for (int64_t k = 0; k < n; ++k) __builtin_prefetch(in_y + k * c.out[0] * c.out[1] + column * side, 1);
      transform<ToTerms<side, side>>(
          [&](int i, int j) __attribute__((always_inline)) { return load(m + ((side + 2) * i + j) * plane_); },
          [&](int i, int j, Vec<float> sum) __attribute__((always_inline)) {
            if (i >= rows || column + j >= c.out[1]) return;
            const Vec<float> output = sum + bias;
            finite.note(output);
            store(at + (i * c.out[1] + j) * width, output);
          });
    }
  }

  const Correlated<side>& c;
  int64_t plane_, most_;
  Scratch<float> products_, pixels_;
};

// Sets of lines, whose transformed tiles stay in the second cache, meet the weights of `count` blocks, transformed
// before.
template <int side>
bool set_by_set(const Correlated<side>& c, const Weights<side>& weights, int64_t set, int64_t first_block,
                int64_t count, float* y, const float* x, const float* bias) {
  const Scratch<float> all(count * c.block_size());
  parallel_for(count * c.parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      weights.transform(first_block + i / c.parts, i % c.parts, all.data() + i * c.part_size());
  });
  std::atomic<bool> finite = true;
  parallel_for(ceil_div(c.lines(), set), grain_of(set * c.cost_of_line(), worth), [&](int64_t begin, int64_t end) {
    const Transformed tiles(positions<side>, c.tiling.channels, set * c.tiling.tiles[1]);
    const Tiles<FromImage<side>> transformation(c.tiling);
    const Outputs<side> outputs(c, set);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * set, last = std::min(c.lines(), first + set);
      transformation.run(tiles.memory.data(), tiles.row, tiles.plane, x, first, last);
      for (int64_t block = 0; block < count; ++block) {
        const float* const of_block = all.data() + block * c.block_size();
        for (int64_t part = 0; part < c.parts; ++part)
          outputs.multiply(tiles, of_block + part * c.part_size(), first_block + block, part, last - first);
        if (!outputs.finish(y, bias, first_block + block, first, last)) finite = false;
      }
    }
  });
  return finite;
}

// All tiles meet one block's weights after the other.
template <int side>
bool block_by_block(const Correlated<side>& c, const Weights<side>& weights, float* y, const float* x,
                    const float* bias) {
  const Transformed tiles(positions<side>, c.tiling.channels, c.lines() * c.tiling.tiles[1]);
  const int64_t cost = c.tiling.tiles[1] * c.tiling.channels * positions<side>;
  parallel_for(c.lines(), grain_of(cost), [&](int64_t begin, int64_t end) {
    Tiles<FromImage<side>>(c.tiling).run(tiles.memory.data() + begin * c.tiling.tiles[1] * tiles.row, tiles.row,
                                         tiles.plane, x, begin, end);
  });
  std::atomic<bool> finite = true;
  parallel_for(c.blocks(), grain_of(c.lines() * c.cost_of_line() / c.blocks(), worth), [&](int64_t begin, int64_t end) {
    const Scratch<float> part_weights(c.part_size());
    const Outputs<side> outputs(c, c.lines());
    for (int64_t block = begin; block < end; ++block) {
      for (int64_t part = 0; part < c.parts; ++part) {
        weights.transform(block, part, part_weights.data());
        outputs.multiply(tiles, part_weights.data(), block, part, c.lines());
      }
      if (!outputs.finish(y, bias, block, 0, c.lines())) finite = false;
    }
  });
  return finite;
}

template <int side>
bool correlate_tiles(const Extents& e, float* y, const float* x, const float* w, bool turned, const float* bias) {
  // Elements of transformed tiles; more where the weights are not near themselves, so that they are read less often.
  constexpr int64_t near = 256 << 10, near_few = 1 << 20, many_weights = 1 << 20, few = 1 << 20;
  const Correlated<side> c(e);
  const Weights<side> weights{c, w, turned};
  const int64_t line = positions<side> * c.tiling.channels * c.tiling.tiles[1];
  const int64_t threads = num_threads(), rounds = ceil_div(c.blocks(), threads);
  const bool busy = 3 * rounds * threads <= 4 * c.blocks();  // most threads have blocks most of the time
  if (line * c.lines() <= few && busy) return block_by_block(c, weights, y, x, bias);
  const int64_t most = std::max<int64_t>(1, (c.blocks() * c.block_size() > many_weights ? near_few : near) / line);
  const int64_t sets = ceil_div(ceil_div(c.lines(), most), threads) * threads;  // as many for each thread
  const int64_t together = kept_together(c.blocks(), c.block_size());
  for (int64_t block = 0; block < c.blocks(); block += together)
    if (!set_by_set(c, weights, ceil_div(c.lines(), sets), block, std::min(together, c.blocks() - block), y, x, bias))
      return false;
  return true;
}

bool correlate(const Extents& e, float* y, const float* x, const float* w, bool turned, const float* bias) {
  return takes_four(e.result) ? correlate_tiles<4>(e, y, x, w, turned, bias)
                              : correlate_tiles<2>(e, y, x, w, turned, bias);
}

}  // namespace

bool winograd::takes_four(const std::array<int64_t, 2>& outputs) {
  const auto cost = [&](int64_t side, int64_t products) {
    return products * ceil_div(outputs[0], side) * ceil_div(outputs[1], side);
  };
  return largest_winograd() == 4 && cost(4, positions<4>) < cost(2, positions<2>);
}

bool suits_winograd(const ConvShape& s) {
  constexpr std::array<int64_t, 2> one{1, 1};
  constexpr int64_t channels = 16, pixels = 48;  // fewer do not pay for the transformations
  return largest_winograd() != 0 && s.kernel_h == 3 && s.kernel_w == 3 && s.g.stride == one && s.g.dilation == one &&
         s.groups == 1 && s.channels >= channels && s.outputs >= channels && s.images * s.out_plane() >= pixels &&
         s.g.padding[0] <= 2 && s.g.padding[1] <= 2;
}

bool winograd_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias) {
  return correlate({.images = s.images,
                    .in = s.channels,
                    .out = s.outputs,
                    .image = {s.height, s.width},
                    .result = {s.out_height, s.out_width},
                    .padding = s.g.padding},
                   y, x, w, false, bias);
}

bool winograd_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w) {
  return correlate({.images = s.images,
                    .in = s.outputs,
                    .out = s.channels,
                    .image = {s.out_height, s.out_width},
                    .result = {s.height, s.width},
                    .padding = {2 - s.g.padding[0], 2 - s.g.padding[1]}},
                   dx, dy, w, true, nullptr);
}

}  // namespace loom::cpu
