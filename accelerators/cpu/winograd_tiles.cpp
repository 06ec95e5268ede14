// SPDX-License-Identifier: Apache-2.0
// Transformation of tiles: images are turned into [pixel][channel] first, so that vectors run over channels.
#include <algorithm>

#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/winograd.h>
#include <loom/accelerators/cpu/winograd_transforms.h>

namespace loom::cpu::winograd {

template <class Transform>
Tiles<Transform>::Tiles(const Tiling& tiling) : t_(tiling), pixel_(ceil_div(tiling.channels, apart) * apart + apart) {
  constexpr int64_t cached = 64 << 10;  // elements that stay near
  const int64_t beyond = window - side, row = t_.image[1] * pixel_;
  most_ = std::clamp<int64_t>((cached / row - beyond) / side, 1, t_.tiles[0]);
  const int64_t size = (most_ * side + beyond) * row;
  turned_ = Scratch<float>(size);
  zeros_ = Scratch<float>(pixel_);
  std::fill_n(zeros_.data(), pixel_, 0.0F);
  if (t_.channels % n != 0) std::fill_n(turned_.data(), size, 0.0F);  // channels that there are not
}

template <class Transform>
void Tiles<Transform>::line(float* to, int64_t row, int64_t plane, int64_t first_row, int64_t tile_row) const {
  for (int64_t tile = 0; tile < t_.tiles[1]; ++tile, to += row) {
    const float* pixel[window][window];
    for (int64_t i = 0; i < window; ++i)
      for (int64_t j = 0; j < window; ++j) {
        const int64_t r = tile_row * side - t_.padding[0] + i, c = tile * side - t_.padding[1] + j;
        const bool inside = r >= 0 && r < t_.image[0] && c >= 0 && c < t_.image[1];
        pixel[i][j] = inside ? turned_.data() + ((r - first_row) * t_.image[1] + c) * pixel_ : zeros_.data();
      }
    for (int64_t c = 0; c < t_.channels; c += n)
      transform<Transform>(
          [&](int i, int j) __attribute__((always_inline)) { return load(pixel[i][j] + c); },
          [&](int i, int j, Vec<float> v)
              __attribute__((always_inline)) { store(to + (Transform::to * i + j) * plane + c, v); });
  }
}

template <class Transform>
void Tiles<Transform>::run(float* to, int64_t row, int64_t plane, const float* x, int64_t first, int64_t last) const {
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

template class Tiles<FromImage<2>>;
template class Tiles<FromImage<4>>;
template class Tiles<FromTerms<2, 2>>;
template class Tiles<FromTerms<4, 4>>;

}  // namespace loom::cpu::winograd
