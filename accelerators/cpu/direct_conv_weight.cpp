// SPDX-License-Identifier: Apache-2.0
// The gradient of a convolution's weight. dy is turned into [pixel][output channel], a block of channels and a few rows
// at a time; each of its pixels meets the taps of one input channel, whose sums stay in registers.
#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace {

constexpr int64_t width = conv_gradient_block, most_taps = vector_registers == 32 ? 14 : 10;

template <int taps_w>
ConvGradientTile tile_of(int64_t taps_h) {
  constexpr int most = std::min<int>(3, static_cast<int>(most_taps) / taps_w);
  if constexpr (most >= 3)
    if (taps_h >= 3) return conv_gradient_tile<3, taps_w>;
  if constexpr (most >= 2)
    if (taps_h >= 2) return conv_gradient_tile<2, taps_w>;
  return conv_gradient_tile<1, taps_w>;
}

// The tile for up to taps_h rows of the kernel, and how many it takes.
struct TapRows {
  ConvGradientTile run;
  int64_t count;
  TapRows(int64_t taps_h, int64_t taps_w) : count(std::min({taps_h, int64_t{3}, most_taps / taps_w})) {
    switch (taps_w) {
      case 2:
        run = tile_of<2>(count);
        break;
      case 3:
        run = tile_of<3>(count);
        break;
      case 4:
        run = tile_of<4>(count);
        break;
      case 5:
        run = tile_of<5>(count);
        break;
      case 6:
        run = tile_of<6>(count);
        break;
      default:
        run = tile_of<7>(count);
    }
  }
};

// The sums of blocks of output channels over some rows of all images: [block][tap][width].
class BlockGradient {
 public:
  explicit BlockGradient(const ConvShape& shape)
      : s(shape),
        blocks_((s.group_outputs + width - 1) / width),
        band_(std::clamp<int64_t>(1024 / s.out_width, 1, s.out_height)),
        frame_(s.group_channels, {s.height, s.width}, s.g.padding,
               {(band_ - 1) * s.g.stride[0] + (s.kernel_h - 1) * s.g.dilation[0] + 1,
                (s.out_width - 1) * s.g.stride[1] + s.kernel_w}),
        turned_(band_ * s.out_width * width) {}

  // Adds blocks [begin, end), counted through all groups, each to its own sums. Rows are counted through all images.
  void add(float* sums, const float* dy, const float* x, int64_t begin, int64_t end, int64_t first, int64_t last) {
    while (first < last) {
      const int64_t image = first / s.out_height, row = first % s.out_height;
      const int64_t rows = std::min({band_, last - first, s.out_height - row});
      const float* placed = nullptr;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = image * s.groups + i / blocks_, block = i % blocks_;
        if (i == begin || block == 0)
          placed = frame_.place(x + group * s.group_channels * s.plane(), row * s.g.stride[0]);
        turn_band(dy + (group * s.group_outputs + block * width) * s.out_plane() + row * s.out_width, block, rows);
        add_rows(sums + (i - begin) * s.taps() * width, placed, rows);
      }
      first += rows;
    }
  }

 private:
  void turn_band(const float* dy, int64_t block, int64_t rows) const {
    const int64_t channels = std::min(width, s.group_outputs - block * width);
    if (channels < width) std::fill_n(turned_.data(), rows * s.out_width * width, 0.0F);
    turn(turned_.data(), width, dy, s.out_plane(), channels, rows * s.out_width);
  }
  void add_rows(float* sums, const float* x, int64_t rows) const {
    ConvGradientInput in{
        turned_.data(), x, rows, s.out_width, s.g.dilation[0] * frame_.pitch(), s.g.stride[0] * frame_.pitch(),
        s.g.stride[1]};
    for (int64_t c = 0; c < s.group_channels; ++c)
      for (int64_t h = 0; h < s.kernel_h;) {
        const TapRows taps(s.kernel_h - h, s.kernel_w);
        in.x = x + c * frame_.plane() + h * in.pitch;
        taps.run(in, sums);
        h += taps.count;
        sums += taps.count * s.kernel_w * width;
      }
  }

  const ConvShape& s;
  int64_t blocks_;  // of a group
  int64_t band_;    // rows of dy turned at a time: they stay in the cache, and sums over them keep their digits
  Framed frame_;
  Scratch<float> turned_;
};

}  // namespace

bool suits_direct_grad_weight(const ConvShape& s) {
  return !s.pointwise() && !s.depthwise() && s.group_outputs >= direct_channels && s.kernel_w >= 2 && s.kernel_w <= 7 &&
         s.g.dilation[1] == 1;
}

// Threads take blocks of output channels; where those do not divide among them, each takes a part of the rows of all
// blocks, and the parts are added in order.
void direct_grad_weight(const ConvShape& s, float* dw, const float* dy, const float* x) {
  const int64_t group_blocks = (s.group_outputs + width - 1) / width, blocks = s.groups * group_blocks;
  const int64_t rows = s.images * s.out_height, size = s.taps() * width;
  constexpr int64_t worth = 400'000;
  const int64_t threads = std::clamp<int64_t>(2 * blocks * size * rows * s.out_width / worth, 1, num_threads());
  const bool divide = blocks % threads == 0;
  const int64_t parts = divide ? 1 : std::clamp<int64_t>(rows, 1, threads), sets = divide ? threads : 1;
  const Scratch<float> sums(parts * blocks * size);
  parallel_for(sets * parts, 1, [&](int64_t begin, int64_t end) {
    BlockGradient gradient(s);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i % parts, first = blocks * (i / parts) / sets, last = blocks * (i / parts + 1) / sets;
      float* const sum = sums.data() + (part * blocks + first) * size;
      std::fill_n(sum, (last - first) * size, 0.0F);
      gradient.add(sum, dy, x, first, last, rows * part / parts, rows * (part + 1) / parts);
    }
  });
  parallel_for(blocks, grain_of(size * parts), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      float* const sum = sums.data() + block * size;
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = 0; i < size; ++i) sum[i] += sum[part * blocks * size + i];
      const int64_t output = block / group_blocks * s.group_outputs + block % group_blocks * width;
      const int64_t end_of_group = (block / group_blocks + 1) * s.group_outputs;
      turn(dw + output * s.taps(), s.taps(), sum, width, s.taps(), std::min(width, end_of_group - output));
    }
  });
}

}  // namespace loom::cpu
