// SPDX-License-Identifier: Apache-2.0
// Convolutions of 3 x 3 taps, stride 1, with fewer products: Winograd's F(4x4, 3x3), 36 for 16 outputs of a channel
// instead of 144, and F(2x2, 3x3), 16 for 4 instead of 36 (Lavin, Gray 2016). Tiles of 6 x 6 or 4 x 4 inputs and the
// taps are transformed, what is at the same position is multiplied as matrices, and 4 x 4 or 2 x 2 outputs are made of
// the products. Dense arrays of f32.
//
// Errors are parts of the largest numbers in a tile of inputs: a pixel of 1e6 among normal numbers costs the outputs of
// its tile as much as 2, though they do not see it; those of other tiles it costs nothing. NaN does not spread. Who has
// such images sets LOOM_WINOGRAD (accelerators/cpu.h): tiles of 2 x 2 lose as few digits there as plain sums do.
// cuDNN and oneDNN choose such kernels by themselves, too.
//
// Where all numbers are of about one size, errors of 16 x 16 outputs from 64 channels, relative to the sum of the
// products' magnitudes, in 2^-24: root of the mean square (largest).
//                                  normal numbers              positive numbers
//                                  outputs      taps           outputs     taps
//   products added one by one      0.48 (3.0)                  5.2 (19)
//   tiles of 2 x 2 outputs         0.32 (2.2)   0.43 (2.8)     2.6 (20)    4.0 (16)
//   tiles of 4 x 4 outputs         1.07 (13)    0.73 (4.3)     2.1 (22)    1.8 (9.7)
//   the same with points 1 and 2   2.27 (39)    1.56 (23)      3.2 (29)    2.6 (13)
//
// The functions give false where a result is not finite: differences of infinities are NaN where plain sums need not
// be. The caller then computes it another way.
#pragma once

#include <array>

#include <loom/accelerators/cpu/conv.h>
#include <loom/accelerators/cpu/micro_kernel.h>
#include <loom/accelerators/cpu/scratch.h>

namespace loom::cpu {

bool suits_winograd(const ConvShape& s);
bool winograd_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias);
bool winograd_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w);
bool winograd_grad_weight(const ConvShape& s, float* dw, const float* dy, const float* x);

namespace winograd {

inline constexpr int64_t n = lanes<float>, panel = int64_t{tile_vectors} * n;  // panel: channels of a block
inline constexpr int64_t apart = 16;  // elements between runs: lines that are used together must not evict one another

// side: outputs of a tile in a dimension, 2 or 4.
template <int side>
inline constexpr int64_t positions = int64_t{side + 2} * (side + 2);

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t whole_vectors(int64_t channels) { return ceil_div(channels, n) * n; }

// Whether tiles of 4 x 4 outputs take less time than those of 2 x 2, and may be taken. By the plane of outputs alone:
// an image's bits do not depend on how many are beside it, if it has 48 outputs or more (suits_winograd).
bool takes_four(const std::array<int64_t, 2>& outputs);

// Of `count` blocks of `size` elements of transformed weights, or of their sums, so many are kept at a time.
inline int64_t kept_together(int64_t count, int64_t size) {
  constexpr int64_t most = 10 << 20;  // elements: 512 x 512 channels of the larger tiles
  return ceil_div(count, ceil_div(count * size, most));
}

// Transformed tiles: [position][tile][channel].
struct Transformed {
  int64_t row, plane;
  Scratch<float> memory;
  Transformed(int64_t positions, int64_t channels, int64_t tiles)
      : row(ceil_div(channels, apart) * apart + apart), plane(tiles * row + apart), memory(positions * plane) {}
};

// Images [image][channel][height][width] as tiles of pixels whose corners are `side` apart, the first at -padding.
// Lines are rows of tiles, counted through all images.
struct Tiling {
  int64_t channels;
  std::array<int64_t, 2> image, padding, tiles;  // tiles: of an image
};

// A thread's transformation of tiles; Transform (winograd_transforms.h): FromImage of x, FromTerms of dy.
template <class Transform>
class Tiles {
 public:
  explicit Tiles(const Tiling& tiling);
  // Lines [first, last) to tiles 0 .. of `to` (of position 0; `row` and `plane` as Transformed has them).
  void run(float* to, int64_t row, int64_t plane, const float* x, int64_t first, int64_t last) const;

 private:
  static constexpr int64_t window = Transform::from, side = Transform::to - 2;
  void line(float* to, int64_t row, int64_t plane, int64_t first_row, int64_t tile_row) const;

  Tiling t_;
  int64_t pixel_, most_;           // elements from pixel to pixel; lines at a time
  Scratch<float> turned_, zeros_;  // rows of an image as [pixel][channel]
};

// Adds up what is not finite: 0 as long as all is.
class Finite {
 public:
  [[gnu::always_inline]] void note(Vec<float> v) { sum_ = fma(v, Vec<float>{}, sum_); }
  explicit operator bool() const {
    float sum = 0;
    for (int i = 0; i < lanes<float>; ++i) sum += sum_[i];
    return sum == 0;
  }

 private:
  Vec<float> sum_{};
};

}  // namespace winograd

}  // namespace loom::cpu
