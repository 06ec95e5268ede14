// SPDX-License-Identifier: Apache-2.0
// How direct convolution rearranges its operands: matrices turned over, images put into frames.
#include <loom/accelerators/cpu/direct_conv.h>

namespace loom::cpu {

namespace {

constexpr int n = lanes<float>;

// Images come from far: what a row will need soon is asked for this many elements early, among many rows less.
constexpr int64_t prefetch_distance = 512;

// A square of which `rows` x `columns` elements exist.
template <class S>
void turn_part(float* to, int64_t to_step, const S* from, int64_t from_step, int64_t rows, int64_t columns) {
  const FirstLanes<float> height(rows);
  Vec<float> square[n] = {};
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i)
    if (i < rows) square[i] = load_first(from + i * from_step, columns);
  transpose<float>(square);
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i)
    if (i < columns) store(to + i * to_step, square[i], height);
}

template <class S>
void turn_square(float* to, int64_t to_step, const S* from, int64_t from_step) {
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

void copy_row(BFloat16* to, const BFloat16* from, int64_t count) {
  prefetch_run(from + prefetch_distance, count * static_cast<int64_t>(sizeof(BFloat16)));
  std::copy_n(from, count, to);
}

// Pairs of every step-th of `count` elements.
void join(BFloat16Pair* to, const BFloat16* first, const BFloat16* second, int64_t count, int64_t step) {
  const auto pair = [&](int64_t i) {
    return BFloat16Pair{first[i].bits | static_cast<uint32_t>(second[i].bits) << 16};
  };
  if (step == 1) {
    prefetch_run(first + prefetch_distance, count * static_cast<int64_t>(sizeof(BFloat16)));
    prefetch_run(second + prefetch_distance, count * static_cast<int64_t>(sizeof(BFloat16)));
    for (int64_t i = 0; i < count; ++i) to[i] = pair(i);
  } else {
    for (int64_t i = 0; i < count; i += step) *to++ = pair(i);
  }
}

}  // namespace

template <class S>
void turn(float* to, int64_t to_step, const S* from, int64_t from_step, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += n)
    for (int64_t c = 0; c < columns; c += n) {
      float* const target = to + c * to_step + r;
      const S* const source = from + r * from_step + c;
      if (r + n <= rows && c + n <= columns)
        turn_square(target, to_step, source, from_step);
      else
        turn_part(target, to_step, source, from_step, std::min<int64_t>(n, rows - r),
                  std::min<int64_t>(n, columns - c));
    }
}

template void turn(float*, int64_t, const float*, int64_t, int64_t, int64_t);
template void turn(float*, int64_t, const BFloat16*, int64_t, int64_t, int64_t);

template <class T>
Framed<T>::Framed(int64_t channels, std::array<int64_t, 2> image, std::array<int64_t, 2> padding,
                  std::array<int64_t, 2> extent, int64_t frames, int64_t step)
    : channels_(channels),
      frames_(frames),
      step_(step),
      image_(image),
      padding_(padding),
      extent_{extent[0], (extent[1] + step - 1) / step * step},
      framed_(is_pair<T> || padding[0] != 0 || padding[1] != 0 || extent[0] > image[0] || extent[1] > image[1]) {
  if (!framed_) return;
  const int64_t size = (channels + together - 1) / together * channel();
  memory_ = Scratch<T>(size);
  std::fill_n(memory_.data(), size, T{});
  if (channels % together == 0) return;
  zeros_ = Scratch<S>(image[1]);
  std::fill_n(zeros_.data(), image[1], S{});
}

template <class T>
const T* Framed<T>::place(const S* x, int64_t first, int64_t frame) {
  if constexpr (!is_pair<T>)
    if (!framed_) return x + first * image_[1];
  const int64_t columns = std::clamp<int64_t>(extent_[1] - padding_[1], 0, image_[1]);
  for (int64_t c = 0; c < channels_; c += together) {
    T* const to = memory_.data() + c / together * channel() + frame * plane();
    for (int64_t r = 0; r < extent_[0]; ++r) {
      const int64_t source = first + r - padding_[0];
      const S* const from = x + (c * image_[0] + source) * image_[1];
      if (source < 0 || source >= image_[0])  // it may have held another part of the image
        std::fill_n(to + r * extent_[1], extent_[1], T{});
      else if constexpr (is_pair<T>)
        place_pairs(to + r * extent_[1], from, c + 1 < channels_ ? from + image_[0] * image_[1] : zeros_.data(),
                    columns);
      else
        copy_row(to + r * extent_[1] + padding_[1], from, columns);
    }
  }
  return memory_.data() + frame * plane();
}

template <class T>
void Framed<T>::place_pairs(T* to, const S* first, const S* second, int64_t columns) const {
  if constexpr (is_pair<T>)
    for (int64_t i = 0; i < std::min(step_, columns); ++i)
      join(to + column(padding_[1] + i), first + i, second + i, columns - i, step_);
}

template class Framed<float>;
template class Framed<BFloat16>;
template class Framed<BFloat16Pair>;

}  // namespace loom::cpu
