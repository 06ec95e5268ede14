// SPDX-License-Identifier: Apache-2.0
// How direct convolution rearranges its operands: matrices turned over, images put into frames.
#include <loom/accelerators/cpu/direct_conv.h>

namespace loom::cpu {

namespace {

constexpr int n = lanes<float>;

// Images come from far: what a row will need soon is asked for this many elements early, among many rows less.
constexpr int64_t prefetch_distance = 512;

// A square of which `rows` x `columns` elements exist.
void turn_part(float* to, int64_t to_step, const float* from, int64_t from_step, int64_t rows, int64_t columns) {
  const FirstLanes<float> width(columns), height(rows);
  Vec<float> square[n] = {};
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i)
    if (i < rows) square[i] = load(from + i * from_step, width);
  transpose<float>(square);
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i)
    if (i < columns) store(to + i * to_step, square[i], height);
}

void turn_square(float* to, int64_t to_step, const float* from, int64_t from_step) {
  Vec<float> square[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    __builtin_prefetch(from + i * from_step + prefetch_distance / 16);
    square[i] = load(from + i * from_step);
  }
  transpose<float>(square);
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store(to + i * to_step, square[i]);
}

void copy_row(float* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += n) __builtin_prefetch(from + prefetch_distance + i);
  int64_t i = 0;
  for (; i + n <= count; i += n) store(to + i, load(from + i));
  if (i == count) return;
  const FirstLanes<float> rest(count - i);
  store(to + i, load(from + i, rest), rest);
}

}  // namespace

void turn(float* to, int64_t to_step, const float* from, int64_t from_step, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += n)
    for (int64_t c = 0; c < columns; c += n) {
      float* const target = to + c * to_step + r;
      const float* const source = from + r * from_step + c;
      if (r + n <= rows && c + n <= columns)
        turn_square(target, to_step, source, from_step);
      else
        turn_part(target, to_step, source, from_step, std::min<int64_t>(n, rows - r),
                  std::min<int64_t>(n, columns - c));
    }
}

Framed::Framed(int64_t channels, std::array<int64_t, 2> image, std::array<int64_t, 2> padding,
               std::array<int64_t, 2> extent, int64_t frames)
    : channels_(channels),
      frames_(frames),
      image_(image),
      padding_(padding),
      extent_(extent),
      framed_(padding[0] != 0 || padding[1] != 0 || extent[0] > image[0] || extent[1] > image[1]) {
  if (!framed_) return;
  memory_ = Scratch<float>(channels * channel());
  std::fill_n(memory_.data(), channels * channel(), 0.0F);
}

const float* Framed::place(const float* x, int64_t first, int64_t frame) {
  if (!framed_) return x + first * image_[1];
  const int64_t columns = std::clamp<int64_t>(extent_[1] - padding_[1], 0, image_[1]);
  for (int64_t c = 0; c < channels_; ++c) {
    float* const to = memory_.data() + c * channel() + frame * plane() + padding_[1];
    for (int64_t r = 0; r < extent_[0]; ++r) {
      const int64_t source = first + r - padding_[0];
      if (source >= 0 && source < image_[0])
        copy_row(to + r * extent_[1], x + (c * image_[0] + source) * image_[1], columns);
      else  // it may have held another part of the image
        std::fill_n(to + r * extent_[1], columns, 0.0F);
    }
  }
  return memory_.data() + frame * plane();
}

}  // namespace loom::cpu
