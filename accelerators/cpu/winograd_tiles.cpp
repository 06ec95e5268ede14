// SPDX-License-Identifier: Apache-2.0
// Transformation of tiles: images are turned into [pixel][channel] first, so that vectors run over channels.
#include <algorithm>

#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/winograd.h>

namespace loom::cpu::winograd {

namespace {

// Four inputs along a dimension; of the window of 2, pixels of dy.
template <int window>
[[gnu::always_inline]] inline void transform(const Vec<float> (&d)[window], Vec<float> (&to)[4]) {
  if constexpr (window == 4) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
  } else {
    const Vec<float> half = broadcast(0.5F), a = d[0] * half, b = d[1] * half;
    to[0] = d[0];
    to[1] = a + b;
    to[2] = a - b;
    to[3] = d[1];
  }
}

template <int window>
[[gnu::always_inline]] inline void transform_tile(float* to, int64_t plane, const float* const (&pixel)[window][window],
                                                  int64_t channels) {
  for (int64_t c = 0; c < channels; c += n) {
    Vec<float> rows[window][4];
#pragma GCC unroll 4
    for (int j = 0; j < window; ++j) {
      Vec<float> column[window], turned[4];
#pragma GCC unroll 4
      for (int i = 0; i < window; ++i) column[i] = load(pixel[i][j] + c);
      transform<window>(column, turned);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) rows[j][i] = turned[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      Vec<float> line[window], turned[4];
#pragma GCC unroll 4
      for (int j = 0; j < window; ++j) line[j] = rows[j][i];
      transform<window>(line, turned);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) store(to + (4 * i + j) * plane + c, turned[j]);
    }
  }
}

}  // namespace

template <int window>
Tiles<window>::Tiles(const Tiling& tiling) : t_(tiling), pixel_(ceil_div(tiling.channels, apart) * apart + apart) {
  constexpr int64_t cached = 16 << 10;  // elements that stay near
  const int64_t beyond = window - side, row = t_.image[1] * pixel_;
  most_ = std::clamp<int64_t>((cached / row - beyond) / side, 1, t_.tiles[0]);
  const int64_t size = (most_ * side + beyond) * row;
  turned_ = Scratch<float>(size);
  zeros_ = Scratch<float>(pixel_);
  std::fill_n(zeros_.data(), pixel_, 0.0F);
  if (t_.channels % n != 0) std::fill_n(turned_.data(), size, 0.0F);  // channels that there are not
}

template <int window>
void Tiles<window>::line(float* to, int64_t row, int64_t plane, int64_t first_row, int64_t tile_row) const {
  for (int64_t tile = 0; tile < t_.tiles[1]; ++tile) {
    const float* pixel[window][window];
    for (int64_t i = 0; i < window; ++i)
      for (int64_t j = 0; j < window; ++j) {
        const int64_t r = tile_row * side - t_.padding[0] + i, c = tile * side - t_.padding[1] + j;
        const bool inside = r >= 0 && r < t_.image[0] && c >= 0 && c < t_.image[1];
        pixel[i][j] = inside ? turned_.data() + ((r - first_row) * t_.image[1] + c) * pixel_ : zeros_.data();
      }
    transform_tile<window>(to + tile * row, plane, pixel, t_.channels);
  }
}

template <int window>
void Tiles<window>::run(float* to, int64_t row, int64_t plane, const float* x, int64_t first, int64_t last) const {
  for (int64_t at = first; at < last;) {
    const int64_t image = at / t_.tiles[0], tile_row = at % t_.tiles[0];
    const int64_t lines = std::min({most_, last - at, t_.tiles[0] - tile_row});
    const int64_t top = tile_row * side - t_.padding[0];
    const int64_t from = std::clamp<int64_t>(top, 0, t_.image[0]);
    const int64_t to_row = std::clamp<int64_t>(top + (lines - 1) * side + window, from, t_.image[0]);
    const int64_t size = t_.image[0] * t_.image[1];
    turn(turned_.data(), pixel_, x + image * t_.channels * size + from * t_.image[1], size, t_.channels,
         (to_row - from) * t_.image[1]);
    for (int64_t i = 0; i < lines; ++i) line(to + (at - first + i) * t_.tiles[1] * row, row, plane, from, tile_row + i);
    at += lines;
  }
}

template class Tiles<4>;
template class Tiles<2>;

}  // namespace loom::cpu::winograd
