// Pooling over [N, C, L] (1d) and [N, C, H, W] (2d).
#pragma once

#include <loom/autograd/ops/convolution.h>
#include <loom/nn/module.h>

namespace loom::nn {

struct MaxPool1d {
  int64_t kernel_size;
  std::optional<int64_t> stride = {};  // default: kernel_size, here and below
  int64_t padding = 0;

  Tensor operator()(const Tensor& x) const { return max_pool1d(x, kernel_size, stride, padding); }
  LOOM_MEMBERS()
};

struct MaxPool2d {
  Pair kernel_size;
  std::optional<Pair> stride = {};
  Pair padding = 0, dilation = 1;
  bool ceil_mode = false;

  Tensor operator()(const Tensor& x) const {
    return max_pool2d(x, kernel_size,
                      {.stride = stride, .padding = padding, .dilation = dilation, .ceil_mode = ceil_mode});
  }
  LOOM_MEMBERS()
};

struct AvgPool1d {
  int64_t kernel_size;
  std::optional<int64_t> stride = {};
  int64_t padding = 0;

  Tensor operator()(const Tensor& x) const { return avg_pool1d(x, kernel_size, stride, padding); }
  LOOM_MEMBERS()
};

struct AvgPool2d {
  Pair kernel_size;
  std::optional<Pair> stride = {};
  Pair padding = 0;
  bool ceil_mode = false;
  bool count_include_pad = true;

  Tensor operator()(const Tensor& x) const {
    return avg_pool2d(
        x, kernel_size,
        {.stride = stride, .padding = padding, .ceil_mode = ceil_mode, .count_include_pad = count_include_pad});
  }
  LOOM_MEMBERS()
};

struct AdaptiveAvgPool2d {
  Pair output_size;

  Tensor operator()(const Tensor& x) const { return adaptive_avg_pool2d(x, output_size); }
  LOOM_MEMBERS()
};

}  // namespace loom::nn
