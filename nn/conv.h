// Convolutions (cross-correlations, as everywhere); the same weights and shapes as PyTorch's.
#pragma once

#include <string_view>

#include <loom/autograd/ops/convolution.h>
#include <loom/nn/module.h>

namespace loom::nn {

// Zeros around the input: a number, {height, width}, "valid" (none) or "same" (as many outputs as inputs, stride 1).
struct Padding {
  Pair amount = 0;
  bool same = false;

  Padding(int both) : amount(both) {}                                // NOLINT: .padding = 1
  Padding(int64_t both) : amount(both) {}                            // NOLINT
  Padding(int64_t height, int64_t width) : amount(height, width) {}  // NOLINT: .padding = {1, 2}
  Padding(std::string_view mode);                                    // NOLINT
  Padding(const char* mode) : Padding(std::string_view(mode)) {}     // NOLINT: .padding = "same"
};

struct Conv1dOptions {
  int64_t stride = 1;
  Padding padding = 0;
  int64_t dilation = 1, groups = 1;
  bool bias = true;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

struct Conv2dOptions {
  Pair stride = 1;
  Padding padding = 0;
  Pair dilation = 1;
  int64_t groups = 1;
  bool bias = true;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

struct ConvTranspose2dOptions {
  Pair stride = 1, padding = 0, output_padding = 0;
  int64_t groups = 1;
  bool bias = true;
  Pair dilation = 1;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// x [N, C, L] -> [N, out_channels, L']
struct Conv1d {
  Parameter weight, bias;  // [out, in / groups, kernel], [out]
  Conv1dOptions options;

  Conv1d(int64_t in_channels, int64_t out_channels, int64_t kernel_size, const Conv1dOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  LOOM_MEMBERS(weight, bias)
};

// x [N, C, H, W] -> [N, out_channels, H', W']
struct Conv2d {
  Parameter weight, bias;  // [out, in / groups, height, width], [out]
  Conv2dOptions options;

  Conv2d(int64_t in_channels, int64_t out_channels, Pair kernel_size, const Conv2dOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  LOOM_MEMBERS(weight, bias)
};

// The transpose of Conv2d as a linear map: x [N, C, H, W] -> [N, out_channels, H', W'], larger for strides above 1.
struct ConvTranspose2d {
  Parameter weight, bias;  // [in, out / groups, height, width], [out]
  ConvTranspose2dOptions options;

  ConvTranspose2d(int64_t in_channels, int64_t out_channels, Pair kernel_size,
                  const ConvTranspose2dOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& x) const;
  LOOM_MEMBERS(weight, bias)
};

}  // namespace loom::nn
