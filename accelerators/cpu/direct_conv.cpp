// SPDX-License-Identifier: Apache-2.0
#include <loom/accelerators/cpu/direct_conv.h>

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
  const auto index = static_cast<size_t>(pixels - 1);
  return rows == 1 ? one[index] : two[index];
}

ConvTile tile_of(int64_t rows, int64_t pixels, int64_t vectors, int64_t step) {
  if (vectors == 1) return step == 1 ? tile_of<1, 1>(rows, pixels) : tile_of<1, 2>(rows, pixels);
  return step == 1 ? tile_of<2, 1>(rows, pixels) : tile_of<2, 2>(rows, pixels);
}

// A correlation of framed planes with packed weights; the forward pass, and with roles changed the gradient of x.
struct Correlation {
  int64_t images, groups;
  int64_t in_channels, out_channels;  // of a group
  std::array<int64_t, 2> in, out, kernel, step, padding, dilation;

  int64_t kernel_plane() const { return kernel[0] * kernel[1]; }
  int64_t taps() const { return in_channels * kernel_plane(); }
  int64_t blocks() const { return (out_channels + conv_block - 1) / conv_block; }
  int64_t channels_of(int64_t block) const { return std::min<int64_t>(conv_block, out_channels - block * conv_block); }
  int64_t width_of(int64_t block) const { return channels_of(block) > n ? 2 * n : n; }
  int64_t out_plane() const { return out[0] * out[1]; }
  std::array<int64_t, 2> extent() const {
    return {(out[0] - 1) * step[0] + (kernel[0] - 1) * dilation[0] + 1,
            (out[1] - 1) * step[1] + (kernel[1] - 1) * dilation[1] + 1};
  }
};

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

// One block of channels for rows [first, last) of one image: tiles of equal width, narrow ones of two rows.
void correlate_rows(const Correlation& c, const ConvInput& in, const float* weights, const float* bias,
                    const ConvOutput& out, int64_t first, int64_t last) {
  const int64_t width = c.out[1], count = (width + conv_pixels - 1) / conv_pixels;
  const int64_t vectors = out.channels > n ? 2 : 1, tall = 2 * width <= conv_pixels ? 2 : 1;
  for (int64_t row = first; row < last;) {
    const int64_t rows = std::min(tall, last - row);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = width * i / count, pixels = width * (i + 1) / count - begin;
      ConvInput from = in;
      from.at += row * in.row_step + begin * c.step[1];
      ConvOutput to = out;
      to.at += row * width + begin;
      tile_of(rows, pixels, vectors, c.step[1])(from, weights, bias, to);
    }
    row += rows;
  }
}

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
    ConvInput in{nullptr, place, c.taps(), c.step[0] * frame.pitch()};
    int64_t placed = -1;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / blocks / bands, band = i / blocks % bands, block = i % blocks;  // image: and group
      if (placed != image) in.at = frame.place(x + image * image_size);
      placed = image;
      const ConvOutput out{y + (image * c.out_channels + block * conv_block) * c.out_plane(), c.channels_of(block),
                           c.out_plane(), c.out[1]};
      const int64_t at = image % c.groups * blocks + block;
      correlate_rows(c, in, packed.weights(at), packed.bias(at), out, c.out[0] * band / bands,
                     c.out[0] * (band + 1) / bands);
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

// dx is dy, framed by what the kernel reaches beyond the padding, correlated with the flipped kernel.
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

}  // namespace

bool suits_direct_forward(const ConvShape& s) {
  return !s.depthwise() && s.group_outputs >= direct_channels && s.g.stride[1] <= 2;
}

void direct_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias) {
  const Correlation c = forward_of(s);
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

bool suits_direct_grad_input(const ConvShape& s) {
  const Correlation c = grad_input_of(s);
  return !s.depthwise() && s.group_channels >= direct_channels && s.g.stride[0] == 1 && s.g.stride[1] == 1 &&
         c.padding[0] >= 0 && c.padding[1] >= 0;
}

void direct_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w) {
  const Correlation c = grad_input_of(s);
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
