// SPDX-License-Identifier: Apache-2.0
// What direct convolutions come down to: rows of outputs of a block of channels, cut into tiles.
#pragma once

#include <array>

#include <loom/accelerators/cpu/conv_tile.h>
#include <loom/accelerators/cpu/direct_conv.h>

namespace loom::cpu {

// A correlation of framed planes with packed weights; the forward pass, and with roles changed the gradient of x.
struct Correlation {
  int64_t images, groups;
  int64_t in_channels, out_channels;  // of a group
  std::array<int64_t, 2> in, out, kernel, step, padding, dilation;

  int64_t kernel_plane() const { return kernel[0] * kernel[1]; }
  int64_t taps() const { return in_channels * kernel_plane(); }
  template <class E>
  int64_t steps() const {  // of a tile
    return (is_pair<E> ? (in_channels + 1) / 2 : in_channels) * kernel_plane();
  }
  int64_t blocks() const { return (out_channels + conv_block - 1) / conv_block; }
  int64_t channels_of(int64_t block) const { return std::min<int64_t>(conv_block, out_channels - block * conv_block); }
  int64_t width_of(int64_t block) const { return channels_of(block) > lanes<float> ? conv_block : lanes<float>; }
  int64_t out_plane() const { return out[0] * out[1]; }
  std::array<int64_t, 2> extent() const {
    return {(out[0] - 1) * step[0] + (kernel[0] - 1) * dilation[0] + 1,
            (out[1] - 1) * step[1] + (kernel[1] - 1) * dilation[1] + 1};
  }
};

Correlation forward_of(const ConvShape& s);
// dx is dy, framed by what the kernel reaches beyond the padding, correlated with the flipped kernel.
Correlation grad_input_of(const ConvShape& s);

// Rows of outputs, counted through images; one block of channels.
template <class E>
struct ConvLines {
  const E* const* images;  // frames
  int64_t rows, width;     // of an image's outputs
  int64_t row_step, step;  // in a frame, from a row of outputs to the next and from an output to the next
  const int64_t* offset;   // of taps
  int64_t taps;
  StoredOf<E>* y;
  int64_t image_step, channel_step, channels;  // of y, whose rows are dense; channel_step 0: as ConvOutput has it

  // weights [taps][one or two vectors], bias as wide.
  void run(const float* weights, const float* bias, int64_t first, int64_t last) const;
};

// The block-wise way, for small planes and for the gradient of strided convolutions: a block's weights are packed when
// it is its turn, and meet all images, or as many as fit the cache.
bool suits_blockwise(const Correlation& c);
void blockwise_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias);
void blockwise_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w);

}  // namespace loom::cpu
