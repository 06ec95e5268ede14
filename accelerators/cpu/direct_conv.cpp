// SPDX-License-Identifier: Apache-2.0
#include <loom/accelerators/cpu/correlation.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace {

constexpr int n = lanes<float>;

template <int rows, int vectors, int step, size_t... pixels>
constexpr std::array<ConvTile, sizeof...(pixels)> tiles_of(std::index_sequence<pixels...>) {
  return {&conv_tile<rows, static_cast<int>(pixels) + 1, vectors, step>...};
}

template <int vectors, int step>
ConvTile tile_of(int64_t rows, int64_t pixels) {
  static constexpr auto one = tiles_of<1, vectors, step>(std::make_index_sequence<conv_pixels>());
  static constexpr auto two = tiles_of<2, vectors, step>(std::make_index_sequence<conv_pixels / 2>());
  static constexpr auto most = tiles_of<conv_rows, vectors, step>(std::make_index_sequence<conv_pixels / conv_rows>());
  const auto index = static_cast<size_t>(pixels - 1);
  return rows == 1 ? one[index] : rows == 2 ? two[index] : most[index];
}

ConvTile tile_of(int64_t rows, int64_t pixels, int64_t vectors, int64_t step) {
  if (vectors == 1) return step == 1 ? tile_of<1, 1>(rows, pixels) : tile_of<1, 2>(rows, pixels);
  return step == 1 ? tile_of<2, 1>(rows, pixels) : tile_of<2, 2>(rows, pixels);
}

// Weights as [group][block][tap][channels of the block], where those beyond the last channel are zero.
class Packed {
 public:
  Packed(const Correlation& c, const float* bias)
      : block_size_(c.taps() * conv_block),
        weights_(c.groups * c.blocks() * block_size_),
        bias_(c.groups * c.blocks() * conv_block) {
    for (int64_t i = 0; i < c.groups * c.blocks(); ++i) {
      const int64_t group = i / c.blocks(), block = i % c.blocks(), channels = c.channels_of(block);
      if (channels < c.width_of(block)) std::fill_n(weights(i), c.taps() * c.width_of(block), 0.0F);
      float* const b = bias_.data() + i * conv_block;
      std::fill_n(b, conv_block, 0.0F);
      if (bias != nullptr) std::copy_n(bias + group * c.out_channels + block * conv_block, channels, b);
    }
  }
  float* weights(int64_t block) const { return weights_.data() + block * block_size_; }
  const float* bias(int64_t block) const { return bias_.data() + block * conv_block; }

 private:
  int64_t block_size_;
  Scratch<float> weights_, bias_;
};

// Work is cut into images x groups x bands of rows x blocks of channels. All blocks pass over a band while its pixels
// are in the second-level cache; more bands are cut where threads would have nothing to do.
void correlate(const Correlation& c, const Packed& packed, const int64_t* place, float* y, const float* x) {
  const int64_t blocks = c.blocks(), items = c.images * c.groups * blocks;
  const int64_t image_size = c.in_channels * c.in[0] * c.in[1];
  constexpr int64_t cached = 98'304, worth = 400'000;
  const int64_t bands =
      std::clamp<int64_t>(std::max(image_size / cached, (4 * num_threads() + items - 1) / items), 1, c.out[0]);
  const int64_t cost = 2 * c.taps() * conv_block * (c.out[0] / bands) * c.out[1];
  parallel_for(items * bands, grain_of(cost, worth), [&](int64_t begin, int64_t end) {
    Framed frame(c.in_channels, c.in, c.padding, c.extent());
    const float* frames = nullptr;
    int64_t placed = -1;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / blocks / bands, band = i / blocks % bands, block = i % blocks;  // image: and group
      if (placed != image) frames = frame.place(x + image * image_size);
      placed = image;
      float* const to = y + (image * c.out_channels + block * conv_block) * c.out_plane();
      const ConvLines lines{&frames, c.out[0], c.out[1],      c.step[0] * frame.pitch(), c.step[1], place, c.taps(),
                            to,      0,        c.out_plane(), c.channels_of(block)};
      const int64_t at = image % c.groups * blocks + block;
      lines.run(packed.weights(at), packed.bias(at), c.out[0] * band / bands, c.out[0] * (band + 1) / bands);
    }
  });
}

// Where each tap lies in the frame, in the order of the packed weights; `flipped`: the kernel turned by 180 degrees.
Scratch<int64_t> tap_places(const Correlation& c, bool flipped) {
  const Framed frame(0, c.in, c.padding, c.extent());
  Scratch<int64_t> place(c.taps());
  int64_t* to = place.data();
  for (int64_t channel = 0; channel < c.in_channels; ++channel)
    for (int64_t h = 0; h < c.kernel[0]; ++h)
      for (int64_t w = 0; w < c.kernel[1]; ++w) {
        const int64_t row = flipped ? c.kernel[0] - 1 - h : h, column = flipped ? c.kernel[1] - 1 - w : w;
        *to++ = channel * frame.plane() + row * c.dilation[0] * frame.pitch() + column * c.dilation[1];
      }
  return place;
}

// Narrow planes of pointwise convolutions are taken as one row, which tiles fill better.
Correlation flattened(const ConvShape& s, Correlation c) {
  if (s.pointwise() && 2 * s.width < conv_pixels) c.in = c.out = {1, s.plane()};
  return c;
}

}  // namespace

// Tiles of equal width. Narrow ones take several rows, not always of one image.
void ConvLines::run(const float* weights, const float* bias, int64_t first, int64_t last) const {
  const bool halves = conv_rows > 2 && width == 2 * (conv_pixels / conv_rows);  // taller tiles have more pixels
  const int64_t count = halves ? 2 : (width + conv_pixels - 1) / conv_pixels, vectors = channels > n ? 2 : 1;
  const int64_t most = std::clamp<int64_t>(conv_pixels * count / width, 1, conv_rows);
  for (int64_t line = first; line < last; line += most) {
    const int64_t tall = std::min(most, last - line);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = width * i / count, pixels = width * (i + 1) / count - begin;
      ConvInput in{{}, offset, taps};
      ConvOutput out{{}, channels, channel_step};
      for (int64_t r = 0; r < tall; ++r) {
        const int64_t image = (line + r) / rows, row = (line + r) % rows;
        in.row[r] = images[image] + row * row_step + begin * step;
        out.row[r] = y + image * image_step + (row * width + begin) * (channel_step == 0 ? vectors * n : 1);
      }
      tile_of(tall, pixels, vectors, step)(in, weights, bias, out);
    }
  }
}

Correlation forward_of(const ConvShape& s) {
  return flattened(s, {s.images,
                       s.groups,
                       s.group_channels,
                       s.group_outputs,
                       {s.height, s.width},
                       {s.out_height, s.out_width},
                       {s.kernel_h, s.kernel_w},
                       s.g.stride,
                       s.g.padding,
                       s.g.dilation});
}

Correlation grad_input_of(const ConvShape& s) {
  const std::array<int64_t, 2> kernel{s.kernel_h, s.kernel_w};
  std::array<int64_t, 2> padding{};
  for (size_t i = 0; i < 2; ++i) padding[i] = (kernel[i] - 1) * s.g.dilation[i] - s.g.padding[i];
  return flattened(s, {s.images,
                       s.groups,
                       s.group_outputs,
                       s.group_channels,
                       {s.out_height, s.out_width},
                       {s.height, s.width},
                       kernel,
                       s.g.stride,
                       padding,
                       s.g.dilation});
}

bool suits_direct_forward(const ConvShape& s) {
  return !s.depthwise() && s.group_outputs >= direct_channels && s.g.stride[1] <= 2;
}

void direct_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias) {
  const Correlation c = forward_of(s);
  if (suits_blockwise(c)) return blockwise_forward(s, y, x, w, bias);
  const Packed packed(c, bias);
  parallel_for(c.groups * c.blocks(), grain_of(c.taps() * conv_block), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i % c.blocks(), first = i / c.blocks() * c.out_channels + block * conv_block;
      turn(packed.weights(i), c.width_of(block), w + first * c.taps(), c.taps(), c.channels_of(block), c.taps());
    }
  });
  const Scratch<int64_t> place = tap_places(c, false);
  correlate(c, packed, place.data(), y, x);
}

bool suits_direct_grad_input(const ConvShape& s) { return !s.depthwise() && s.group_channels >= direct_channels; }

void direct_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w) {
  const Correlation c = grad_input_of(s);
  const bool plain = s.g.stride[0] == 1 && s.g.stride[1] == 1 && c.padding[0] >= 0 && c.padding[1] >= 0;
  if (!plain || suits_blockwise(c)) return blockwise_grad_input(s, dx, dy, w);
  const Packed packed(c, nullptr);
  const int64_t plane = c.kernel_plane();
  parallel_for(s.outputs, grain_of(s.taps()), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o)
      for (int64_t block = 0; block < c.blocks(); ++block) {
        const int64_t width = c.width_of(block);
        float* const to = packed.weights(o / s.group_outputs * c.blocks() + block);
        turn(to + o % s.group_outputs * plane * width, width, w + o * s.taps() + block * conv_block * plane, plane,
             c.channels_of(block), plane);
      }
  });
  const Scratch<int64_t> place = tap_places(c, true);
  correlate(c, packed, place.data(), dx, dy);
}

}  // namespace loom::cpu
