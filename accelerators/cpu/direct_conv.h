// SPDX-License-Identifier: Apache-2.0
// Convolution straight from the image, without a matrix of columns; dense arrays of f32, or of bf16 where E, what tiles
// multiply, is BFloat16Pair. Each pass says which shapes it is made for; conv.cpp takes matrix products for the others.
#pragma once

#include <loom/accelerators/cpu/conv.h>
#include <loom/accelerators/cpu/conv_tile.h>
#include <loom/accelerators/cpu/scratch.h>

namespace loom::cpu {

template <class E>
inline constexpr bool has_direct_conv = is_pair<E> ? may_have_pair_products : std::is_same_v<E, float>;

template <class E>
bool suits_direct_forward(const ConvShape& s);
template <class E>
void direct_forward(const ConvShape& s, StoredOf<E>* y, const StoredOf<E>* x, const StoredOf<E>* w, const float* bias);

template <class E>
bool suits_direct_grad_input(const ConvShape& s);
template <class E>
void direct_grad_input(const ConvShape& s, StoredOf<E>* dx, const StoredOf<E>* dy, const StoredOf<E>* w);

template <class E>
bool suits_direct_grad_weight(const ConvShape& s);
template <class E>
void direct_grad_weight(const ConvShape& s, float* dw, const StoredOf<E>* dy, const StoredOf<E>* x);

// Of a model's first layer, where images have one channel.
bool suits_one_channel_grad_weight(const ConvShape& s);
void one_channel_grad_weight(const ConvShape& s, float* dw, const float* dy, const float* x);

// Fewer output channels than this leave most lanes of a vector idle.
inline constexpr int64_t direct_channels = lanes<float> / 2;

// to[c * to_step + r] = from[r * from_step + c] for rows x columns elements of `from`, which are floats or BFloat16.
template <class S>
void turn(float* to, int64_t to_step, const S* from, int64_t from_step, int64_t rows, int64_t columns);

// Images within frames of zeros. The frames are made once; images come and go inside them. T is float or BFloat16, as
// images have it, or BFloat16Pair: two neighbouring channels in one, the second zero where there is none.
template <class T>
class Framed {
  using S = StoredOf<T>;

 public:
  // `extent` rows and columns of a frame, in which the image begins at `padding`; what does not fit is left out.
  // Columns of pairs lie in the order 0, step, 2 * step .., 1, step + 1 ..; the step of others is 1.
  Framed(int64_t channels, std::array<int64_t, 2> image, std::array<int64_t, 2> padding, std::array<int64_t, 2> extent,
         int64_t frames = 1, int64_t step = 1);
  // Makes rows [first, first + rows of the frame) of the frame around the channels of x readable; gives their address.
  const T* place(const S* x, int64_t first = 0, int64_t frame = 0);
  bool framed() const { return framed_; }
  int64_t pitch() const { return framed_ ? extent_[1] : image_[1]; }
  int64_t plane() const { return framed_ ? extent_[0] * extent_[1] : image_[0] * image_[1]; }  // from frame to frame
  int64_t channel() const { return framed_ ? frames_ * plane() : plane(); }  // from channel to channel
  int64_t column(int64_t c) const { return c % step_ * (pitch() / step_) + c / step_; }

 private:
  void place_pairs(T* to, const S* first, const S* second, int64_t columns) const;  // a row

  static constexpr int64_t together = is_pair<T> ? 2 : 1;  // channels
  int64_t channels_, frames_, step_;
  std::array<int64_t, 2> image_, padding_, extent_;
  bool framed_;
  Scratch<T> memory_;
  Scratch<S> zeros_;  // a row of the channel that a last pair lacks
};

}  // namespace loom::cpu
