// SPDX-License-Identifier: Apache-2.0
// The innermost loops of direct convolution: tiles of sums held in registers. Vectors run over output channels, pixels
// are broadcast, so planes of any width leave no lane idle. E, what a step multiplies, is float or BFloat16Pair.
#pragma once

#include <loom/accelerators/cpu/micro_kernel.h>
#include <loom/accelerators/cpu/shuffle.h>

namespace loom::cpu {

// Output channels of a block: as many as two vectors hold.
inline constexpr int conv_vectors = 2, conv_block = conv_vectors * lanes<float>;
// Pixels of a tile, in up to so many rows.
inline constexpr int conv_pixels = vector_registers == 32 ? 14 : 6, conv_rows = vector_registers == 32 ? 3 : 2;

// Where a tile reads: tap k of pixel (r, q) is row[r][offset[k] + q * step].
template <class E>
struct ConvInput {
  const E* row[conv_rows];
  const int64_t* offset;
  int64_t taps;
};
// Where it writes: channel o, pixel (r, q) row[r][o * channel_step + q]; the first `channels` channels only. With
// channel_step 0, floats only, the sums stay as they are: vectors of all channels, one pixel after the other.
template <class S>
struct ConvOutput {
  S* row[conv_rows];
  int64_t channels, channel_step;
};

namespace conv_detail {

template <class S>
[[gnu::always_inline]] inline void store_pixels(S* p, Vec<float> v, const FirstLanes<float>& mask, int64_t count) {
  if constexpr (std::is_same_v<S, float>)
    store(p, v, mask);
  else
    store_first(p, v, count);
}

// Pixels are lanes after the turn: one store per channel, of `count` pixels.
template <int pixels, int vectors, class S>
[[gnu::always_inline]] inline void store_row(const Vec<float> (&sum)[pixels][vectors], const ConvOutput<S>& out,
                                             S* at) {
  constexpr int n = lanes<float>;
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v)
#pragma GCC unroll 4
    for (int first = 0; first < pixels; first += n) {
      constexpr Vec<float> none{};
      Vec<float> turned[n];
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) turned[i] = first + i < pixels ? sum[first + i < pixels ? first + i : 0][v] : none;
      transpose<float>(turned);
      S* const to = at + v * n * out.channel_step + first;
      const int64_t channels = out.channels - v * n;
      const int count = pixels - first < n ? pixels - first : n;
      const FirstLanes<float> mask(count);
      if (channels >= n) {
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) store_pixels(to + i * out.channel_step, turned[i], mask, count);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i)
          if (i < channels) store_pixels(to + i * out.channel_step, turned[i], mask, count);
      }
    }
}

}  // namespace conv_detail

// rows x pixels outputs of vectors * lanes channels: out = bias + sum over taps of weights[k][channel] * input.
// weights: [taps][vectors * lanes]; bias as wide.
template <int rows, int pixels, int vectors, int step, class E>
void conv_tile(const ConvInput<E>& in, const float* weights, const float* bias, const ConvOutput<StoredOf<E>>& out) {
  constexpr int n = lanes<float>;
  Vec<float> sum[rows][pixels][vectors];
#pragma GCC unroll 32
  for (int v = 0; v < vectors; ++v)
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 16
      for (int q = 0; q < pixels; ++q) sum[r][q][v] = load(bias + v * n);
  for (int64_t k = 0; k < in.taps; ++k, weights += vectors * n) {
    const int64_t at = in.offset[k];
    Vec<float> w[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) w[v] = load(weights + v * n);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 16
      for (int q = 0; q < pixels; ++q) {
        const Vec<float> pixel = broadcast_step<E>(in.row[r] + at + q * step);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[r][q][v] = add_product<E>(pixel, w[v], sum[r][q][v]);
      }
  }
  if constexpr (!is_pair<E>) {
    if (out.channel_step == 0) {
#pragma GCC unroll 32
      for (int i = 0; i < rows * pixels * vectors; ++i)
        store(out.row[i / (pixels * vectors)] + i % (pixels * vectors) * n,
              sum[i / (pixels * vectors)][i / vectors % pixels][i % vectors]);
      return;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) conv_detail::store_row<pixels, vectors>(sum[r], out, out.row[r]);
}

template <class E>
using ConvTile = void (*)(const ConvInput<E>&, const float*, const float*, const ConvOutput<StoredOf<E>>&);

// The gradient of `taps_h` rows of `taps_w` taps of one input channel by conv_gradient_vectors * lanes output channels,
// to or added to dw [taps_h * taps_w][channels]: over pixels of any rows of images, dy [pixel][channels] times the
// tap's pixel of x. A pair is of two neighbouring pixels.
inline constexpr int conv_gradient_vectors = vector_registers == 32 ? 2 : 1;
inline constexpr int conv_gradient_block = conv_gradient_vectors * lanes<float>;

template <class E>
struct ConvGradientInput {
  const float* dy;
  const StoredOf<E>* x;
  const int64_t* offset;  // of x, for each pixel (or pair) of dy
  int64_t pixels, pitch;  // pitch: of x, from a row of taps to the next
  bool adds;
};

template <int taps_h, int taps_w, class E>
void conv_gradient_tile(const ConvGradientInput<E>& in, float* dw) {
  constexpr int n = lanes<float>, vectors = conv_gradient_vectors;
  Vec<float> sum[taps_h][taps_w][vectors] = {};
  const float* dy = in.dy;
  for (int64_t p = 0; p < in.pixels; ++p, dy += vectors * n) {
    const StoredOf<E>* const x = in.x + in.offset[p];
    Vec<float> g[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) g[v] = load(dy + v * n);
#pragma GCC unroll 4
    for (int h = 0; h < taps_h; ++h)
#pragma GCC unroll 16
      for (int w = 0; w < taps_w; ++w) {
        const Vec<float> pixel = broadcast_step<E>(x + h * in.pitch + w);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sum[h][w][v] = add_product<E>(pixel, g[v], sum[h][w][v]);
      }
  }
  const bool adds = in.adds;
#pragma GCC unroll 32
  for (int t = 0; t < taps_h * taps_w * vectors; ++t) {
    const Vec<float> total = sum[t / vectors / taps_w][t / vectors % taps_w][t % vectors];
    store(dw + t * n, adds ? load(dw + t * n) + total : total);
  }
}

template <class E>
using ConvGradientTile = void (*)(const ConvGradientInput<E>&, float*);

}  // namespace loom::cpu
