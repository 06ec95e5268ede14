// Convolution and pooling over [N, C, H, W] (2-d) and [N, C, L] (1-d) tensors; unbatched input is accepted as in
// PyTorch.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include <loom/tensor/tensor.h>

namespace loom {

// One number for both spatial dims, or {height, width}.
struct Pair {
  int64_t height = 1, width = 1;
  Pair(int64_t both) : height(both), width(both) {}     // NOLINT: .padding = 1
  Pair(int both) : Pair(static_cast<int64_t>(both)) {}  // NOLINT
  Pair(int64_t h, int64_t w) : height(h), width(w) {}   // NOLINT: .padding = {1, 2}
};

struct Conv1dOptions {
  int64_t stride = 1, padding = 0, dilation = 1, groups = 1;
};
struct Conv2dOptions {
  Pair stride = 1, padding = 0, dilation = 1;
  int64_t groups = 1;
};
struct ConvTranspose2dOptions {
  Pair stride = 1, padding = 0, output_padding = 0, dilation = 1;
  int64_t groups = 1;
};
struct PoolOptions {
  std::optional<Pair> stride{};  // default: the kernel's size
  Pair padding = 0, dilation = 1;
  bool ceil_mode = false;
  bool count_include_pad = true;  // averages
};

// x [N, C, L], weight [O, C / groups, K], bias [O] or undefined -> [N, O, L']
Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Conv1dOptions& options = {});
// x [N, C, H, W], weight [O, C / groups, KH, KW], bias [O] or undefined -> [N, O, H', W'];
// H' = (H + 2 padding - dilation (KH - 1) - 1) / stride + 1, rounded down.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Conv2dOptions& options = {});
// weight [C, O / groups, KH, KW]; H' = (H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1.
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        const ConvTranspose2dOptions& options = {});

Tensor max_pool2d(const Tensor& x, Pair kernel, const PoolOptions& options = {});
std::pair<Tensor, Tensor> max_pool2d_with_indices(const Tensor& x, Pair kernel, const PoolOptions& options = {});
Tensor avg_pool2d(const Tensor& x, Pair kernel, const PoolOptions& options = {});
Tensor max_pool1d(const Tensor& x, int64_t kernel, std::optional<int64_t> stride = {}, int64_t padding = 0);
Tensor avg_pool1d(const Tensor& x, int64_t kernel, std::optional<int64_t> stride = {}, int64_t padding = 0);
Tensor adaptive_avg_pool2d(const Tensor& x, Pair output);  // windows as PyTorch's, also where sizes do not divide

}  // namespace loom
