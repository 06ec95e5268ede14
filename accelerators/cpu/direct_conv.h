// SPDX-License-Identifier: Apache-2.0
// Convolution straight from the image, without a matrix of columns; f32, dense arrays. Each pass says which shapes it
// is made for; conv.cpp takes matrix products for the others.
#pragma once

#include <loom/accelerators/cpu/conv.h>
#include <loom/accelerators/cpu/conv_tile.h>
#include <loom/accelerators/cpu/scratch.h>

namespace loom::cpu {

bool suits_direct_forward(const ConvShape& s);
void direct_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias);

bool suits_direct_grad_input(const ConvShape& s);
void direct_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w);

bool suits_direct_grad_weight(const ConvShape& s);
void direct_grad_weight(const ConvShape& s, float* dw, const float* dy, const float* x);

// Fewer output channels than this leave most lanes of a vector idle.
inline constexpr int64_t direct_channels = lanes<float> / 2;

// to[c * to_step + r] = from[r * from_step + c] for rows x columns elements of `from`.
void turn(float* to, int64_t to_step, const float* from, int64_t from_step, int64_t rows, int64_t columns);

// Images within frames of zeros. The frames are made once; images come and go inside them.
class Framed {
 public:
  // `extent` rows and columns of a frame, in which the image begins at `padding`; what does not fit is left out.
  Framed(int64_t channels, std::array<int64_t, 2> image, std::array<int64_t, 2> padding, std::array<int64_t, 2> extent,
         int64_t frames = 1);
  // Makes rows [first, first + rows of the frame) of the frame around the channels of x readable; gives their address.
  const float* place(const float* x, int64_t first = 0, int64_t frame = 0);
  bool framed() const { return framed_; }
  int64_t pitch() const { return framed_ ? extent_[1] : image_[1]; }
  int64_t plane() const { return framed_ ? extent_[0] * extent_[1] : image_[0] * image_[1]; }  // from frame to frame
  int64_t channel() const { return framed_ ? frames_ * plane() : plane(); }  // from channel to channel

 private:
  int64_t channels_, frames_;
  std::array<int64_t, 2> image_, padding_, extent_;
  bool framed_;
  Scratch<float> memory_;
};

}  // namespace loom::cpu
