// SPDX-License-Identifier: Apache-2.0
// Convolutions of 3 x 3 taps, stride 1, with 16 products for 4 outputs of a channel instead of 36: Winograd's F(2x2,
// 3x3) (Lavin, Gray 2016). Tiles of 4 x 4 inputs and the taps are transformed, what is at the same position is
// multiplied as matrices, and 2 x 2 outputs are made of the 16 products. An output is made of its own taps' inputs
// alone, so numbers elsewhere cost it no digits and NaN does not spread. Dense arrays of f32.
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
inline constexpr int64_t positions = 16, side = 2;                             // side: outputs of a tile in a dimension
inline constexpr int64_t apart = 16;  // elements between runs: lines that are used together must not evict one another

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t whole_vectors(int64_t channels) { return ceil_div(channels, n) * n; }

// Transformed tiles: [position][tile][channel].
struct Transformed {
  int64_t row, plane;
  Scratch<float> memory;
  Transformed(int64_t channels, int64_t tiles)
      : row(ceil_div(channels, apart) * apart + apart), plane(tiles * row + apart), memory(positions * plane) {}
};

// Images [image][channel][height][width] as tiles of window x window pixels whose corners are 2 apart, the first at
// -padding: of x for the window of 4, of dy for that of 2. Lines are rows of tiles, counted through all images.
struct Tiling {
  int64_t channels;
  std::array<int64_t, 2> image, padding, tiles;  // tiles: of an image
};

// A thread's transformation of tiles.
template <int window>
class Tiles {
 public:
  explicit Tiles(const Tiling& tiling);
  // Lines [first, last) to tiles 0 .. of `to` (of position 0; `row` and `plane` as Transformed has them).
  void run(float* to, int64_t row, int64_t plane, const float* x, int64_t first, int64_t last) const;

 private:
  void line(float* to, int64_t row, int64_t plane, int64_t first_row, int64_t tile_row) const;

  Tiling t_;
  int64_t pixel_, most_;           // elements from pixel to pixel; lines at a time
  Scratch<float> turned_, zeros_;  // rows of an image as [pixel][channel]
};

// Adds up what is not finite: 0 as long as all is.
class Finite {
 public:
  [[gnu::always_inline]] void note(Vec<float> v) { sum_ += v * Vec<float>{}; }
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
