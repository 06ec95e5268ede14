// SPDX-License-Identifier: Apache-2.0
// A convolution and its gradients against loops in double.
#pragma once

#include "kernel_test.h"

namespace kernel_test {

struct ConvCase {
  std::string what;
  Dims x, w;  // [N, C, H, W], [O, C / groups, KH, KW]
  ConvGeometry g;
  double roundings = 1;  // relative to those of a plain sum

  Dims y() const {
    const auto out = [&](int side) {
      const auto s = static_cast<size_t>(side);
      return (x[2 + side] + 2 * g.padding[s] - g.dilation[s] * (w[2 + side] - 1) - 1) / g.stride[s] + 1;
    };
    return {x[0], w[0], out(0), out(1)};
  }
};

// Calls f(y index, x index, w index) for every product of the convolution.
template <class F>
void for_each_product(const ConvCase& c, const F& f) {
  const Dims y = c.y();
  const int64_t group_outputs = c.w[0] / c.g.groups;
  for (int64_t n = 0; n < y[0]; ++n)
    for (int64_t o = 0; o < y[1]; ++o)
      for (int64_t oh = 0; oh < y[2]; ++oh)
        for (int64_t ow = 0; ow < y[3]; ++ow)
          for (int64_t ci = 0; ci < c.w[1]; ++ci)
            for (int64_t kh = 0; kh < c.w[2]; ++kh)
              for (int64_t kw = 0; kw < c.w[3]; ++kw) {
                const int64_t h = oh * c.g.stride[0] - c.g.padding[0] + kh * c.g.dilation[0];
                const int64_t w = ow * c.g.stride[1] - c.g.padding[1] + kw * c.g.dilation[1];
                if (h < 0 || h >= c.x[2] || w < 0 || w >= c.x[3]) continue;
                const int64_t channel = o / group_outputs * c.w[1] + ci;
                f(static_cast<size_t>(((n * y[1] + o) * y[2] + oh) * y[3] + ow),
                  static_cast<size_t>(((n * c.x[1] + channel) * c.x[2] + h) * c.x[3] + w),
                  static_cast<size_t>(((o * c.w[1] + ci) * c.w[2] + kh) * c.w[3] + kw));
              }
}

inline void check_conv(const ConvCase& c, DType t, Layout layout) {
  CAPTURE(c.what);
  CAPTURE(to_string(t));
  CAPTURE(static_cast<int>(layout));
  const Dims shape = c.y();
  const Array x = random(t, c.x, layout), w = random(t, c.w, layout), bias = random(t, {c.w[0]}, layout);
  const Array dy = random(t, shape, layout);
  const Array y(t, shape, layout), plain(t, shape), dx(t, c.x, layout), dw(t, c.w, layout);
  const std::vector<double> xs = values(x), ws = values(w), gs = values(dy);
  std::vector<double> y_plain(gs.size(), 0.0), dx_expected(xs.size(), 0.0), dw_expected(ws.size(), 0.0);
  for_each_product(c, [&](size_t out, size_t in, size_t weight) {
    y_plain[out] += xs[in] * ws[weight];
    dx_expected[in] += gs[out] * ws[weight];
    dw_expected[weight] += gs[out] * xs[in];
  });
  std::vector<double> y_expected = y_plain;
  for (size_t i = 0; i < y_expected.size(); ++i)
    y_expected[i] += get(bias, static_cast<int64_t>(i) / (shape[2] * shape[3]) % shape[1]);

  Accelerator& cpu = cpu_accelerator();
  cpu.conv2d(y, x, w, bias, c.g);
  cpu.conv2d(plain, x, w, without(), c.g);
  cpu.conv2d_grad_input(dx, dy, w, c.g);
  cpu.conv2d_grad_weight(dw, dy, x, c.g);
  // Terms are added one to the other: errors are of the size of the sums on the way, which grow themselves. Of 16 bits
  // only the result is, rounded once.
  const bool narrow = t == DType::f16 || t == DType::bf16;
  const auto within = [&, rounding = narrow ? epsilon(t) / 2 : 0,
                       eps = epsilon(narrow ? DType::f32 : t)](int64_t terms) {
    return rounding +
           c.roundings * eps * (4 + 4 * std::sqrt(static_cast<double>(terms)) + static_cast<double>(terms) / 16);
  };
  check_close(y, y_expected, within(c.w[1] * c.w[2] * c.w[3]));
  check_close(plain, y_plain, within(c.w[1] * c.w[2] * c.w[3]));
  check_close(dx, dx_expected, within(c.w[0] * c.w[2] * c.w[3]));
  check_close(dw, dw_expected, within(shape[0] * shape[2] * shape[3]));
}

}  // namespace kernel_test
