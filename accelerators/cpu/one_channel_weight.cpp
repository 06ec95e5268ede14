// SPDX-License-Identifier: Apache-2.0
// The gradient of 3 x 3 weights of one input channel, as a first layer has them: too few products to pay for turning dy
// over, so pixels are lanes, and each tap's sums of lanes are added up in the end.
#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/gemm_vector.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace {

constexpr int n = lanes<float>, side = 3, taps = side * side;
constexpr int64_t chain = 256;  // products added one to the other; more would cost digits

// Some rows of images: dy has `rows` rows of `width`, to the next channel channel_step; x lies in a frame.
struct Rows {
  const float* dy;
  int64_t channel_step;
  const float* x;
  int64_t pitch, count, width;
};

// sums [channels][taps][n] += dy of some channels times what each tap sees of x. Lanes beyond a row see nothing.
template <int channels>
void add_rows(const Rows& rows, float* sums) {
  Vec<float> sum[channels][taps] = {};
  const auto meet = [&](const float* dy, const float* x, const auto&... mask) __attribute__((always_inline)) {
    Vec<float> g[channels];
#pragma GCC unroll 4
    for (int c = 0; c < channels; ++c) g[c] = load(dy + c * rows.channel_step, mask...);
    const float* const row[side] = {x, x + rows.pitch, x + 2 * rows.pitch};
#pragma GCC unroll 9
    for (int t = 0; t < taps; ++t) {
      const Vec<float> pixels = loaded(load(row[t / side] + t % side, mask...));  // once: most cross lines
#pragma GCC unroll 4
      for (int c = 0; c < channels; ++c) sum[c][t] = add_product<float>(g[c], pixels, sum[c][t]);
    }
  };
  const int64_t whole = rows.width / n * n;
  const FirstLanes<float> rest(rows.width - whole);
  for (int64_t r = 0; r < rows.count; ++r) {
    const float *const dy = rows.dy + r * rows.width, *const x = rows.x + r * rows.pitch;
    for (int64_t q = 0; q < whole; q += n) meet(dy + q, x + q);
    if (whole < rows.width) meet(dy + whole, x + whole, rest);
  }
#pragma GCC unroll 32
  for (int i = 0; i < channels * taps; ++i) store(sums + i * n, load(sums + i * n) + sum[i / taps][i % taps]);
}

// The same for up to three channels, as many as there are registers for.
void add_rows(int64_t channels, const Rows& rows, float* sums) {
  if constexpr (vector_registers == 32) {
    if (channels == 3) return add_rows<3>(rows, sums);
    if (channels == 2) return add_rows<2>(rows, sums);
  }
  add_rows<1>(rows, sums);
}

// Sums of output channels [begin, end) over all images: [channel][tap][n].
void add_images(const ConvShape& s, float* sums, const float* dy, const float* x, int64_t begin, int64_t end) {
  constexpr int64_t most = vector_registers == 32 ? 3 : 1;
  const int64_t columns = (s.out_width + side - 1 + n - 1) / n * n;  // rows begin where lines do
  Framed<float> frame(1, {s.height, s.width}, s.g.padding, {s.out_height + side - 1, columns});
  const int64_t band = std::clamp<int64_t>(chain / ((s.out_width + n - 1) / n), 1, s.out_height);
  for (int64_t image = 0; image < s.images; ++image) {
    const float* const placed = frame.place(x + image * s.plane());
    for (int64_t o = begin, together = most; o < end; o += together) {
      together = std::min(most, end - o);
      const float* const from = dy + (image * s.outputs + o) * s.out_plane();
      for (int64_t row = 0; row < s.out_height; row += band)
        add_rows(together,
                 {from + row * s.out_width, s.out_plane(), placed + row * frame.pitch(), frame.pitch(),
                  std::min(band, s.out_height - row), s.out_width},
                 sums + (o - begin) * taps * n);
    }
  }
}

}  // namespace

bool suits_one_channel_grad_weight(const ConvShape& s) {
  constexpr std::array<int64_t, 2> one{1, 1};
  constexpr int64_t few = 16;  // outputs, which threads share
  return s.outputs >= few && s.channels == 1 && s.kernel_h == side && s.kernel_w == side && s.g.stride == one &&
         s.g.dilation == one && s.out_width >= n;
}

void one_channel_grad_weight(const ConvShape& s, float* dw, const float* dy, const float* x) {
  constexpr int64_t worth = 400'000;
  parallel_for(s.outputs, grain_of(2 * taps * s.images * s.out_plane(), worth), [&](int64_t begin, int64_t end) {
    const Scratch<float> sums((end - begin) * taps * n);
    std::fill_n(sums.data(), (end - begin) * taps * n, 0.0F);
    add_images(s, sums.data(), dy, x, begin, end);
    for (int64_t i = 0; i < (end - begin) * taps; ++i)
      dw[begin * taps + i] = vector_detail::total<float>(load(sums.data() + i * n));
  });
}

}  // namespace loom::cpu
