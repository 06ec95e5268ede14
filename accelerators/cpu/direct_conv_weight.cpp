// SPDX-License-Identifier: Apache-2.0
// The gradient of a convolution's weight. dy is turned into [pixel][output channel], a block of channels and a few rows
// at a time; each of its pixels meets the taps of one input channel, whose sums stay in registers.
#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace {

constexpr int64_t width = conv_gradient_block, most_taps = vector_registers == 32 ? 14 : 10;

template <class E, int taps_w>
ConvGradientTile<E> tile_of(int64_t taps_h) {
  constexpr int most = std::min<int>(3, static_cast<int>(most_taps) / taps_w);
  if constexpr (most >= 3)
    if (taps_h >= 3) return conv_gradient_tile<3, taps_w, E>;
  if constexpr (most >= 2)
    if (taps_h >= 2) return conv_gradient_tile<2, taps_w, E>;
  return conv_gradient_tile<1, taps_w, E>;
}

// The tile for up to taps_h rows of the kernel, and how many it takes.
template <class E>
struct TapRows {
  ConvGradientTile<E> run;
  int64_t count;
  TapRows(int64_t taps_h, int64_t taps_w) : count(std::min({taps_h, int64_t{3}, most_taps / taps_w})) {
    switch (taps_w) {
      case 2:
        run = tile_of<E, 2>(count);
        break;
      case 3:
        run = tile_of<E, 3>(count);
        break;
      case 4:
        run = tile_of<E, 4>(count);
        break;
      case 5:
        run = tile_of<E, 5>(count);
        break;
      case 6:
        run = tile_of<E, 6>(count);
        break;
      default:
        run = tile_of<E, 7>(count);
    }
  }
};

// The sums of blocks of output channels over some rows of all images: [block][tap][width].
template <class E>
class BlockGradient {
  using S = StoredOf<E>;

 public:
  explicit BlockGradient(const ConvShape& shape)
      : s(shape),
        steps_(is_pair<E> ? s.out_width / 2 : s.out_width),
        blocks_((s.group_outputs + width - 1) / width),
        band_(std::clamp<int64_t>(pixels / s.out_width, 1, s.out_height)),
        extent_{(band_ - 1) * s.g.stride[0] + (s.kernel_h - 1) * s.g.dilation[0] + 1,
                (s.out_width - 1) * s.g.stride[1] + s.kernel_w},
        together_(std::clamp<int64_t>(
            std::min(pixels / s.out_plane(), frames_size / (s.group_channels * extent_[0] * extent_[1])), 1, s.images)),
        frames_(s.group_channels, {s.height, s.width}, s.g.padding, extent_, together_),
        turned_(together_ * band_ * steps_ * width),
        offsets_(together_ * band_ * steps_) {
    const int64_t image_step = frames_.framed() ? frames_.plane() : s.channels * s.plane();
    int64_t* to = offsets_.data();
    for (int64_t i = 0; i < together_; ++i)
      for (int64_t r = 0; r < band_; ++r)
        for (int64_t q = 0; q < s.out_width; q += s.out_width / steps_)
          *to++ = i * image_step + r * s.g.stride[0] * frames_.pitch() + q * s.g.stride[1];
  }

  // Whether rows [first, last), counted through all images, are dealt with in one go: each block once.
  bool at_once(int64_t first, int64_t last) const {
    return first % s.out_height == 0 && last - first <= together_ * band_;
  }

  // Sums of blocks [begin, end), counted through all groups, each `step` behind the one before; done(block, sum) when
  // a block has met all rows.
  template <class Done>
  void run(float* sums, int64_t step, const S* dy, const S* x, int64_t begin, int64_t end, int64_t first, int64_t last,
           const Done& done) {
    for (int64_t at = first; at < last;) {
      const int64_t image = at / s.out_height, row = at % s.out_height,
                    whole = row == 0 ? (last - at) / s.out_height : 0;
      const int64_t images = std::clamp<int64_t>(whole, 1, together_);
      const int64_t rows = std::min({band_, last - at, s.out_height - row});
      const S* placed = nullptr;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / blocks_, block = i % blocks_;
        if (i == begin || block == 0) placed = place(x, image, images, group, row * s.g.stride[0]);
        const S* const from = dy + (image * s.outputs + group * s.group_outputs + block * width) * s.out_plane();
        turn_band(from + row * s.out_width, block, images, rows);
        float* const sum = sums + (i - begin) * step;
        add_rows(sum, placed, images, rows, at > first);
        if (at + images * rows == last) done(i, sum);
      }
      at += images * rows;
    }
  }

 private:
  static constexpr int64_t pixels = 1024;  // of dy turned at a time: they stay in the cache
  static constexpr int64_t chain = 256;    // pixels added one to the other; more would cost digits
  static constexpr int64_t frames_size = 512 << 10;

  const S* place(const S* x, int64_t image, int64_t images, int64_t group, int64_t row) {
    const S* first = nullptr;
    for (int64_t i = images - 1; i >= 0; --i)
      first = frames_.place(x + ((image + i) * s.channels + group * s.group_channels) * s.plane(), row, i);
    return first;
  }
  // A pair is turned as the float of its size.
  void turn_band(const S* dy, int64_t block, int64_t images, int64_t rows) const {
    const int64_t channels = std::min(width, s.group_outputs - block * width), size = rows * steps_;
    if (channels < width) std::fill_n(turned_.data(), images * size * width, 0.0F);
    for (int64_t i = 0; i < images; ++i)
      turn(turned_.data() + i * size * width, width, reinterpret_cast<const float*>(dy + i * s.outputs * s.out_plane()),
           s.out_height * steps_, channels, size);
  }
  void add_rows(float* sums, const S* x, int64_t images, int64_t rows, bool adds) const {
    const int64_t count = images * rows * steps_, pitch = s.g.dilation[0] * frames_.pitch();
    for (int64_t c = 0; c < s.group_channels; ++c)
      for (int64_t h = 0; h < s.kernel_h;) {
        const TapRows<E> taps(s.kernel_h - h, s.kernel_w);
        for (int64_t p = 0; p < count; p += chain)
          taps.run({turned_.data() + p * width, x + c * frames_.channel() + h * pitch, offsets_.data() + p,
                    std::min(chain, count - p), pitch, adds || p > 0},
                   sums);
        h += taps.count;
        sums += taps.count * s.kernel_w * width;
      }
  }

  const ConvShape& s;
  int64_t steps_;   // of tiles, for a row of outputs
  int64_t blocks_;  // of a group
  int64_t band_;    // rows at a time
  std::array<int64_t, 2> extent_;
  int64_t together_;  // small images at a time
  Framed<S> frames_;
  Scratch<float> turned_;
  Scratch<int64_t> offsets_;  // of x, by pixel
};

// Threads take blocks of output channels; where those do not divide among them, each takes a part of the rows of all
// blocks, and the parts are added in order.
template <class E>
void grad_weight(const ConvShape& s, float* dw, const StoredOf<E>* dy, const StoredOf<E>* x) {
  const int64_t group_blocks = (s.group_outputs + width - 1) / width, blocks = s.groups * group_blocks;
  const int64_t rows = s.images * s.out_height, size = s.taps() * width;
  constexpr int64_t worth = 400'000;
  const int64_t threads = std::clamp<int64_t>(2 * blocks * size * rows * s.out_width / worth, 1, num_threads());
  const bool divide = blocks % threads == 0;
  const int64_t parts = divide ? 1 : std::clamp<int64_t>(rows, 1, threads), sets = divide ? threads : 1;
  const auto finish = [&](int64_t block, const float* sum) {
    const int64_t output = block / group_blocks * s.group_outputs + block % group_blocks * width;
    const int64_t end_of_group = (block / group_blocks + 1) * s.group_outputs;
    turn(dw + output * s.taps(), s.taps(), sum, width, s.taps(), std::min(width, end_of_group - output));
  };
  const Scratch<float> sums(parts == 1 ? 0 : parts * blocks * size);
  parallel_for(sets * parts, 1, [&](int64_t begin, int64_t end) {
    BlockGradient<E> gradient(s);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i % parts, first = blocks * (i / parts) / sets, last = blocks * (i / parts + 1) / sets;
      const int64_t first_row = rows * part / parts, last_row = rows * (part + 1) / parts;
      if (parts > 1) {
        gradient.run(sums.data() + part * blocks * size, size, dy, x, first, last, first_row, last_row,
                     [](int64_t, const float*) {});
        continue;
      }
      const bool once = gradient.at_once(first_row, last_row);  // a block's sums need not outlive it
      const Scratch<float> own((once ? 1 : last - first) * size);
      gradient.run(own.data(), once ? 0 : size, dy, x, first, last, first_row, last_row, finish);
    }
  });
  if (parts == 1) return;
  parallel_for(blocks, grain_of(size * parts), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      float* const sum = sums.data() + block * size;
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = 0; i < size; ++i) sum[i] += sum[part * blocks * size + i];
      finish(block, sum);
    }
  });
}

}  // namespace

// Pairs of pixels are neighbours in dy and in x.
template <class E>
bool suits_direct_grad_weight(const ConvShape& s) {
  if (is_pair<E> && (s.out_width % 2 != 0 || s.g.stride[1] != 1)) return false;
  return s.images * s.out_plane() > 0 && !s.pointwise() && !s.depthwise() && s.group_outputs >= direct_channels &&
         s.kernel_w >= 2 && s.kernel_w <= 7 && s.g.dilation[1] == 1;
}

template <class E>
void direct_grad_weight(const ConvShape& s, float* dw, const StoredOf<E>* dy, const StoredOf<E>* x) {
  if constexpr (has_direct_conv<E>) grad_weight<E>(s, dw, dy, x);
}

template bool suits_direct_grad_weight<float>(const ConvShape&);
template bool suits_direct_grad_weight<BFloat16Pair>(const ConvShape&);
template void direct_grad_weight<float>(const ConvShape&, float*, const float*, const float*);
template void direct_grad_weight<BFloat16Pair>(const ConvShape&, float*, const BFloat16*, const BFloat16*);

}  // namespace loom::cpu
