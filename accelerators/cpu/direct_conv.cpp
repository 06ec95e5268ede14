// SPDX-License-Identifier: Apache-2.0
#include <bit>

#include <loom/accelerators/cpu/correlation.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace {

constexpr int n = lanes<float>;

template <class E, int rows, int vectors, int step, size_t... pixels>
constexpr std::array<ConvTile<E>, sizeof...(pixels)> tiles_of(std::index_sequence<pixels...>) {
  return {&conv_tile<rows, static_cast<int>(pixels) + 1, vectors, step, E>...};
}

template <class E, int vectors, int step>
ConvTile<E> tile_of(int64_t rows, int64_t pixels) {
  constexpr int high = conv_rows;
  static constexpr auto one = tiles_of<E, 1, vectors, step>(std::make_index_sequence<conv_pixels>());
  static constexpr auto two = tiles_of<E, 2, vectors, step>(std::make_index_sequence<conv_pixels / 2>());
  static constexpr auto most = tiles_of<E, high, vectors, step>(std::make_index_sequence<conv_pixels / high>());
  const auto index = static_cast<size_t>(pixels - 1);
  return rows == 1 ? one[index] : rows == 2 ? two[index] : most[index];
}

// The step of pairs is 1: their frames see to that.
template <class E>
ConvTile<E> tile_of(int64_t rows, int64_t pixels, int64_t vectors, int64_t step) {
  if constexpr (!is_pair<E>)
    if (step == 2) return vectors == 1 ? tile_of<E, 1, 2>(rows, pixels) : tile_of<E, 2, 2>(rows, pixels);
  return vectors == 1 ? tile_of<E, 1, 1>(rows, pixels) : tile_of<E, 2, 1>(rows, pixels);
}

// Weights as [group][block][step][channels of the block], where those beyond the last channel are zero.
template <class E>
class Packed {
 public:
  Packed(const Correlation& c, const float* bias)
      : block_size_(c.steps<E>() * conv_block),
        weights_(c.groups * c.blocks() * block_size_),
        bias_(c.groups * c.blocks() * conv_block) {
    for (int64_t i = 0; i < c.groups * c.blocks(); ++i) {
      const int64_t group = i / c.blocks(), block = i % c.blocks(), channels = c.channels_of(block);
      if (channels < c.width_of(block)) std::fill_n(weights(i), c.steps<E>() * c.width_of(block), 0.0F);
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

// The weights that `outputs` channels have for some input channels, each a plane of `size`. One plane lies at `from`;
// to the next output's it is `output_step`, to the next input channel's `step`.
template <class S>
struct Planes {
  const S* from;
  int64_t outputs, output_step, channels, step, size;

  // As [channel and element][width].
  void turned(float* to, int64_t width) const {
    if (step == size) return turn(to, width, from, output_step, outputs, channels * size);
    for (int64_t c = 0; c < channels; ++c)
      turn(to + c * size * width, width, from + c * step, output_step, outputs, size);
  }
};

// Rows of bf16, widened, become rows of pairs.
template <class S>
void pack(float* to, int64_t width, const Planes<S>& planes) {
  if constexpr (std::is_same_v<S, float>) return planes.turned(to, width);
  constexpr int64_t some = 16;  // channels, which stay in the cache
  const int64_t row = planes.size * width;
  const Scratch<float> turned((some + 1) * row);
  std::fill_n(turned.data(), (some + 1) * row, 0.0F);
  const auto bits = [](const float* p) { return std::bit_cast<uint32_t>(*p); };
  for (int64_t first = 0; first < planes.channels; first += some) {
    Planes<S> part = planes;
    part.from += first * planes.step;
    part.channels = std::min(some, planes.channels - first);
    part.turned(turned.data(), width);
    if (part.channels % 2 != 0) std::fill_n(turned.data() + part.channels * row, row, 0.0F);
    for (int64_t c = 0; c < part.channels; c += 2, to += row) {
      const float* const pair = turned.data() + c * row;
      for (int64_t k = 0; k < row; ++k) to[k] = std::bit_cast<float>(bits(pair + k) >> 16 | bits(pair + row + k));
    }
  }
}

template <class E>
Framed<E> frame_of(const Correlation& c, int64_t channels) {
  return {channels, c.in, c.padding, c.extent(), 1, is_pair<E> ? c.step[1] : 1};
}

// Work is cut into images x groups x bands of rows x blocks of channels. All blocks pass over a band while its pixels
// are in the second-level cache; more bands are cut where threads would have nothing to do.
template <class E>
void correlate(const Correlation& c, const Packed<E>& packed, const int64_t* place, StoredOf<E>* y,
               const StoredOf<E>* x) {
  const int64_t blocks = c.blocks(), items = c.images * c.groups * blocks;
  const int64_t image_size = c.in_channels * c.in[0] * c.in[1];
  constexpr int64_t cached = 98'304, worth = 400'000;
  const int64_t bands =
      std::clamp<int64_t>(std::max(image_size / cached, (4 * num_threads() + items - 1) / items), 1, c.out[0]);
  const int64_t cost = 2 * c.taps() * conv_block * (c.out[0] / bands) * c.out[1];
  parallel_for(items * bands, grain_of(cost, worth), [&](int64_t begin, int64_t end) {
    Framed<E> frame = frame_of<E>(c, c.in_channels);
    const E* frames = nullptr;
    int64_t placed = -1;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / blocks / bands, band = i / blocks % bands, block = i % blocks;  // image: and group
      if (placed != image) frames = frame.place(x + image * image_size);
      placed = image;
      StoredOf<E>* const to = y + (image * c.out_channels + block * conv_block) * c.out_plane();
      const ConvLines<E> lines{
          &frames, c.out[0], c.out[1],      c.step[0] * frame.pitch(), is_pair<E> ? 1 : c.step[1], place, c.steps<E>(),
          to,      0,        c.out_plane(), c.channels_of(block)};
      const int64_t at = image % c.groups * blocks + block;
      lines.run(packed.weights(at), packed.bias(at), c.out[0] * band / bands, c.out[0] * (band + 1) / bands);
    }
  });
}

// Where each tap lies in the frame, in the order of the packed weights; `flipped`: the kernel turned by 180 degrees.
template <class E>
Scratch<int64_t> tap_places(const Correlation& c, bool flipped) {
  const Framed<E> frame = frame_of<E>(c, 0);
  Scratch<int64_t> place(c.steps<E>());
  int64_t* to = place.data();
  for (int64_t channel = 0; channel < c.steps<E>() / c.kernel_plane(); ++channel)
    for (int64_t h = 0; h < c.kernel[0]; ++h)
      for (int64_t w = 0; w < c.kernel[1]; ++w) {
        const int64_t row = flipped ? c.kernel[0] - 1 - h : h, column = flipped ? c.kernel[1] - 1 - w : w;
        *to++ = channel * frame.plane() + row * c.dilation[0] * frame.pitch() + frame.column(column * c.dilation[1]);
      }
  return place;
}

// Whether the gradient of x is one correlation.
bool plain_grad_input(const ConvShape& s, const Correlation& c) {
  return s.g.stride[0] == 1 && s.g.stride[1] == 1 && c.padding[0] >= 0 && c.padding[1] >= 0;
}

// Narrow planes of pointwise convolutions are taken as one row, which tiles fill better.
Correlation flattened(const ConvShape& s, Correlation c) {
  if (s.pointwise() && 2 * s.width < conv_pixels) c.in = c.out = {1, s.plane()};
  return c;
}

}  // namespace

// Tiles of equal width. Narrow ones take several rows, not always of one image.
template <class E>
void ConvLines<E>::run(const float* weights, const float* bias, int64_t first, int64_t last) const {
  const bool halves = conv_rows > 2 && width == 2 * (conv_pixels / conv_rows);  // taller tiles have more pixels
  const int64_t count = halves ? 2 : (width + conv_pixels - 1) / conv_pixels, vectors = channels > n ? 2 : 1;
  const int64_t most = std::clamp<int64_t>(conv_pixels * count / width, 1, conv_rows);
  for (int64_t line = first; line < last; line += most) {
    const int64_t tall = std::min(most, last - line);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = width * i / count, pixels = width * (i + 1) / count - begin;
      ConvInput<E> in{{}, offset, taps};
      ConvOutput<StoredOf<E>> out{{}, channels, channel_step};
      for (int64_t r = 0; r < tall; ++r) {
        const int64_t image = (line + r) / rows, row = (line + r) % rows;
        in.row[r] = images[image] + row * row_step + begin * step;
        out.row[r] = y + image * image_step + (row * width + begin) * (channel_step == 0 ? vectors * n : 1);
      }
      tile_of<E>(tall, pixels, vectors, step)(in, weights, bias, out);
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

template void ConvLines<float>::run(const float*, const float*, int64_t, int64_t) const;

template <class E>
bool suits_direct_forward(const ConvShape& s) {
  if (s.depthwise() || s.group_outputs < direct_channels) return false;
  return is_pair<E> ? !s.pointwise() : s.g.stride[1] <= 2;
}

template <class E>
void direct_forward(const ConvShape& s, StoredOf<E>* y, const StoredOf<E>* x, const StoredOf<E>* w, const float* bias) {
  if constexpr (has_direct_conv<E>) {
    const Correlation c = forward_of(s);
    if constexpr (!is_pair<E>)
      if (suits_blockwise(c)) return blockwise_forward(s, y, x, w, bias);
    const Packed<E> packed(c, bias);
    parallel_for(c.groups * c.blocks(), grain_of(c.taps() * conv_block), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t block = i % c.blocks(), first = i / c.blocks() * c.out_channels + block * conv_block;
        pack(packed.weights(i), c.width_of(block),
             Planes<StoredOf<E>>{.from = w + first * c.taps(),
                                 .outputs = c.channels_of(block),
                                 .output_step = c.taps(),
                                 .channels = c.in_channels,
                                 .step = c.kernel_plane(),
                                 .size = c.kernel_plane()});
      }
    });
    const Scratch<int64_t> place = tap_places<E>(c, false);
    correlate<E>(c, packed, place.data(), y, x);
  }
}

template <class E>
bool suits_direct_grad_input(const ConvShape& s) {
  if (s.depthwise() || s.group_channels < direct_channels) return false;
  return !is_pair<E> || (!s.pointwise() && plain_grad_input(s, grad_input_of(s)));
}

template <class E>
void direct_grad_input(const ConvShape& s, StoredOf<E>* dx, const StoredOf<E>* dy, const StoredOf<E>* w) {
  if constexpr (has_direct_conv<E>) {
    const Correlation c = grad_input_of(s);
    if constexpr (!is_pair<E>)
      if (!plain_grad_input(s, c) || suits_blockwise(c)) return blockwise_grad_input(s, dx, dy, w);
    const Packed<E> packed(c, nullptr);
    constexpr int64_t together = is_pair<E> ? 16 : 1;  // channels of dy
    const int64_t plane = c.kernel_plane(), runs = (c.in_channels + together - 1) / together;
    parallel_for(c.groups * runs, grain_of(together * s.taps()), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t block = 0; block < c.blocks(); ++block) {
          const int64_t group = i / runs, first = i % runs * together, width = c.width_of(block);
          const int64_t row = first / (is_pair<E> ? 2 : 1) * plane;
          pack(packed.weights(group * c.blocks() + block) + row * width, width,
               Planes<StoredOf<E>>{.from = w + (group * c.in_channels + first) * s.taps() + block * conv_block * plane,
                                   .outputs = c.channels_of(block),
                                   .output_step = plane,
                                   .channels = std::min(together, c.in_channels - first),
                                   .step = s.taps(),
                                   .size = plane});
        }
    });
    const Scratch<int64_t> place = tap_places<E>(c, true);
    correlate<E>(c, packed, place.data(), dx, dy);
  }
}

template bool suits_direct_forward<float>(const ConvShape&);
template bool suits_direct_forward<BFloat16Pair>(const ConvShape&);
template void direct_forward<float>(const ConvShape&, float*, const float*, const float*, const float*);
template void direct_forward<BFloat16Pair>(const ConvShape&, BFloat16*, const BFloat16*, const BFloat16*, const float*);
template bool suits_direct_grad_input<float>(const ConvShape&);
template bool suits_direct_grad_input<BFloat16Pair>(const ConvShape&);
template void direct_grad_input<float>(const ConvShape&, float*, const float*, const float*);
template void direct_grad_input<BFloat16Pair>(const ConvShape&, BFloat16*, const BFloat16*, const BFloat16*);

}  // namespace loom::cpu
