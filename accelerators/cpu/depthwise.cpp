// Depthwise convolutions: so few products per element that unfolding would cost more than the work.
#include <algorithm>
#include <array>

#include <loom/accelerators/cpu/conv.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {
namespace {

// Calls f(y offset of the row's first column, x offset that pairs with it, columns, tap) for all valid rows of all
// taps.
template <class F>
void for_each_row(const ConvShape& s, const F& f) {
  for (int64_t kh = 0; kh < s.kernel_h; ++kh)
    for (int64_t kw = 0; kw < s.kernel_w; ++kw) {
      const ConvRange rows = s.rows(kh), columns = s.columns(kw);
      for (int64_t r = rows.begin; r < rows.end; ++r)
        f(r * s.out_width + columns.begin,
          (r * s.g.stride[0] + s.row_shift(kh)) * s.width + s.column_shift(kw) + columns.begin * s.g.stride[1],
          columns.end - columns.begin, kh * s.kernel_w + kw);
    }
}

template <class F>
void for_each_plane(int64_t count, const ConvShape& s, const F& f) {
  parallel_for(count, grain_of(s.out_plane() * s.taps()), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

}  // namespace

template <class T>
void depthwise_forward(const ConvShape& s, T* y, const T* x, const T* w, const T* bias) {
  const int64_t step = s.g.stride[1];
  for_each_plane(s.images * s.outputs, s, [&](int64_t i) {
    const int64_t n = i / s.outputs, o = i % s.outputs;
    T* const to = y + i * s.out_plane();
    const T* const from = x + (n * s.channels + o / s.group_outputs) * s.plane();
    std::fill_n(to, s.out_plane(), bias != nullptr ? bias[o] : T(0));
    for_each_row(s, [&](int64_t out, int64_t in, int64_t count, int64_t tap) {
      const T weight = w[o * s.taps() + tap];
      if (step == 1)
        for (int64_t j = 0; j < count; ++j) to[out + j] += weight * from[in + j];
      else
        for (int64_t j = 0; j < count; ++j) to[out + j] += weight * from[in + j * step];
    });
  });
}

template <class T>
void depthwise_grad_input(const ConvShape& s, T* dx, const T* dy, const T* w) {
  const int64_t step = s.g.stride[1];
  for_each_plane(s.images * s.channels, s, [&](int64_t i) {
    const int64_t n = i / s.channels, c = i % s.channels;
    T* const to = dx + i * s.plane();
    std::fill_n(to, s.plane(), T(0));
    for (int64_t o = c * s.group_outputs; o < (c + 1) * s.group_outputs; ++o) {
      const T* const from = dy + (n * s.outputs + o) * s.out_plane();
      for_each_row(s, [&](int64_t out, int64_t in, int64_t count, int64_t tap) {
        const T weight = w[o * s.taps() + tap];
        if (step == 1)
          for (int64_t j = 0; j < count; ++j) to[in + j] += weight * from[out + j];
        else
          for (int64_t j = 0; j < count; ++j) to[in + j * step] += weight * from[out + j];
      });
    }
  });
}

// Eight sums side by side, which the compiler keeps in a register; added up in a fixed order.
template <class T>
T strided_dot(const T* a, const T* b, int64_t step, int64_t count) {
  constexpr int64_t lanes = 8;
  std::array<T, lanes> sums{};
  int64_t j = 0;
  if (step == 1)
    for (; j + lanes <= count; j += lanes)
      for (int64_t lane = 0; lane < lanes; ++lane) sums[static_cast<size_t>(lane)] += a[j + lane] * b[j + lane];
  T total = 0;
  for (const T s : sums) total += s;
  for (; j < count; ++j) total += a[j] * b[j * step];
  return total;
}

template <class T>
void depthwise_grad_weight(const ConvShape& s, T* dw, const T* dy, const T* x) {
  const int64_t step = s.g.stride[1];
  parallel_for(s.outputs, grain_of(s.images * s.out_plane() * s.taps()), [&](int64_t begin, int64_t end) {
    const Scratch<double> sums(s.taps());
    double* const sum = sums.data();
    for (int64_t o = begin; o < end; ++o) {
      std::fill_n(sum, s.taps(), 0.0);
      for (int64_t n = 0; n < s.images; ++n) {
        const T* const g = dy + (n * s.outputs + o) * s.out_plane();
        const T* const from = x + (n * s.channels + o / s.group_outputs) * s.plane();
        for_each_row(s, [&](int64_t out, int64_t in, int64_t count, int64_t tap) {
          sum[tap] += static_cast<double>(strided_dot(g + out, from + in, step, count));
        });
      }
      for (int64_t t = 0; t < s.taps(); ++t) dw[o * s.taps() + t] = static_cast<T>(sum[t]);
    }
  });
}

template void depthwise_forward(const ConvShape&, float*, const float*, const float*, const float*);
template void depthwise_forward(const ConvShape&, double*, const double*, const double*, const double*);
template void depthwise_grad_input(const ConvShape&, float*, const float*, const float*);
template void depthwise_grad_input(const ConvShape&, double*, const double*, const double*);
template void depthwise_grad_weight(const ConvShape&, float*, const float*, const float*);
template void depthwise_grad_weight(const ConvShape&, double*, const double*, const double*);

}  // namespace loom::cpu
