// The geometry that the convolution kernels share.
#pragma once

#include <algorithm>
#include <cstdint>

#include <loom/accelerators/accelerator.h>

namespace loom::cpu {

struct ConvRange {
  int64_t begin, end;
};

struct ConvShape {
  int64_t images, channels, height, width;     // x [images, channels, height, width]
  int64_t outputs, out_height, out_width;      // y [images, outputs, out_height, out_width]
  int64_t group_channels, kernel_h, kernel_w;  // w [outputs, group_channels, kernel_h, kernel_w]
  int64_t groups, group_outputs;
  ConvGeometry g;

  ConvShape(const Dims& x, const Dims& w, const Dims& y, const ConvGeometry& geometry)
      : images(x[0]),
        channels(x[1]),
        height(x[2]),
        width(x[3]),
        outputs(w[0]),
        out_height(y[2]),
        out_width(y[3]),
        group_channels(w[1]),
        kernel_h(w[2]),
        kernel_w(w[3]),
        groups(geometry.groups),
        group_outputs(outputs / geometry.groups),
        g(geometry) {}

  int64_t plane() const { return height * width; }
  int64_t out_plane() const { return out_height * out_width; }
  int64_t taps() const { return group_channels * kernel_h * kernel_w; }  // terms of one output
  bool depthwise() const { return groups > 1 && group_channels == 1; }
  // The input itself is the matrix of unfolded columns.
  bool pointwise() const {
    constexpr std::array<int64_t, 2> one{1, 1}, none{0, 0};
    return kernel_h == 1 && kernel_w == 1 && g.stride == one && g.padding == none;
  }
  int64_t row_shift(int64_t kh) const { return kh * g.dilation[0] - g.padding[0]; }
  int64_t column_shift(int64_t kw) const { return kw * g.dilation[1] - g.padding[1]; }
  // Outputs o whose input o * stride + shift lies inside.
  ConvRange rows(int64_t kh) const { return inside(row_shift(kh), g.stride[0], height, out_height); }
  ConvRange columns(int64_t kw) const { return inside(column_shift(kw), g.stride[1], width, out_width); }

 private:
  static ConvRange inside(int64_t shift, int64_t stride, int64_t extent, int64_t out) {
    const int64_t begin = shift >= 0 ? 0 : std::min(out, (-shift + stride - 1) / stride);
    const int64_t end = shift < extent ? std::min(out, (extent - 1 - shift) / stride + 1) : 0;
    return {begin, std::max(begin, end)};
  }
};

// Depthwise convolutions (one input channel per group) in direct loops; dense arrays.
template <class T>
void depthwise_forward(const ConvShape& s, T* y, const T* x, const T* w, const T* bias);
template <class T>
void depthwise_grad_input(const ConvShape& s, T* dx, const T* dy, const T* w);
template <class T>
void depthwise_grad_weight(const ConvShape& s, T* dw, const T* dy, const T* x);

}  // namespace loom::cpu
