// SPDX-License-Identifier: Apache-2.0
// Convolution and pooling, and the ops that are their derivatives.
#include "case.h"

namespace loom::sweep {

namespace {

void add_conv2d(Cases& c, const char* what, const Dims& x, const Dims& w, bool bias, const Conv2dOptions& options) {
  std::vector<Input> inputs{real(x), real(w)};
  if (bias) inputs.push_back(real({w[0]}));
  c.add("conv2d", what, inputs, [=](In in) { return conv2d(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), options); })
      .sum_of(static_cast<double>(w[1] * w[2] * w[3] + 8))
      .roundings(8);
}

void add_convolutions(Cases& c) {
  add_conv2d(c, "", {1, 2, 4, 4}, {2, 2, 3, 3}, true, {});
  add_conv2d(c, "no bias, batch", {2, 1, 3, 4}, {2, 1, 2, 2}, false, {});
  add_conv2d(c, "stride, padding", {1, 1, 5, 4}, {2, 1, 3, 3}, true, {.stride = 2, .padding = 1});
  add_conv2d(c, "stride leaves a rest", {1, 1, 6, 5}, {1, 1, 3, 2}, true, {.stride = {2, 3}});
  add_conv2d(c, "uneven options", {1, 1, 4, 5}, {1, 1, 2, 3}, false,
             {.stride = {1, 2}, .padding = {0, 2}, .dilation = {2, 1}});
  add_conv2d(c, "dilation", {1, 1, 5, 5}, {1, 1, 2, 2}, true, {.padding = 1, .dilation = 2});
  add_conv2d(c, "groups", {1, 4, 3, 3}, {2, 2, 2, 2}, true, {.groups = 2});
  add_conv2d(c, "depthwise", {2, 3, 4, 4}, {3, 1, 3, 3}, true, {.padding = 1, .groups = 3});
  add_conv2d(c, "1 x 1", {2, 3, 2, 2}, {2, 3, 1, 1}, true, {});
  add_conv2d(c, "unbatched", {2, 3, 3}, {1, 2, 2, 2}, true, {});
  add_conv2d(c, "empty batch", {0, 2, 3, 3}, {1, 2, 2, 2}, true, {});
  const auto line = [](const Conv1dOptions& o) {
    return [o](In x) { return conv1d(x[0], x[1], x.size() > 2 ? x[2] : Tensor(), o); };
  };
  c.add("conv1d", "", {real({2, 2, 6}), real({3, 2, 3}), real({3})}, line({})).sum_of(12).roundings(8);
  c.add("conv1d", "options", {real({1, 4, 7}), real({2, 2, 2})},
        line({.stride = 2, .padding = 1, .dilation = 2, .groups = 2}))
      .sum_of(12)
      .roundings(8);
  c.add("conv1d", "unbatched", {real({2, 5}), real({1, 2, 3}), real({1})}, line({})).sum_of(12).roundings(8);
}

void add_transposed(Cases& c) {
  const auto add = [&](const char* what, const Dims& x, const Dims& w, bool bias,
                       const ConvTranspose2dOptions& options) {
    std::vector<Input> inputs{real(x), real(w)};
    if (bias) inputs.push_back(real({w[1] * options.groups}));
    c.add("conv_transpose2d", what, inputs,
          [=](In in) { return conv_transpose2d(in[0], in[1], in.size() > 2 ? in[2] : Tensor(), options); })
        .sum_of(24)
        .roundings(8);
  };
  add("", {1, 2, 3, 3}, {2, 3, 2, 2}, true, {});
  add("stride, padding", {1, 2, 3, 2}, {2, 1, 3, 3}, false, {.stride = 2, .padding = 1});
  add("output_padding", {1, 1, 2, 3}, {1, 2, 2, 2}, true, {.stride = 2, .output_padding = 1});
  add("groups, dilation", {1, 4, 2, 2}, {4, 1, 2, 2}, true, {.dilation = 2, .groups = 2});
  add("output_padding above stride", {2, 2, 2, 3}, {2, 3, 3, 3}, true,
      {.padding = 2, .output_padding = 1, .dilation = 2});
  add("uneven output_padding", {1, 1, 2, 3}, {1, 2, 2, 2}, true,
      {.stride = {2, 3}, .padding = 1, .output_padding = {4, 2}, .dilation = {5, 1}});
  add("unbatched", {2, 2, 2}, {2, 1, 2, 2}, true, {});
  const ConvGeometry g{{2, 1}, {1, 0}, {1, 2}, 1};
  c.add("conv2d_grad_input", "", {real({1, 2, 2, 2}), real({2, 1, 3, 2})},
        [g](In x) {
          return conv2d_grad_input(x[0], x[1], {1, 1, 4, 4}, g);
        })
      .sum_of(24)
      .roundings(8);
  c.add("conv2d_grad_weight", "", {real({1, 2, 2, 2}), real({1, 1, 4, 4})},
        [g](In x) {
          return conv2d_grad_weight(x[0], x[1], {2, 1, 3, 2}, g);
        })
      .sum_of(24)
      .roundings(8);
}

void add_max_pools(Cases& c) {
  const auto add = [&](const char* what, const Dims& x, const Pair& kernel, const PoolOptions& options) {
    c.add("max_pool2d", what, {distinct(x)}, [=](In in) { return max_pool2d(in[0], kernel, options); });
  };
  add("", {2, 2, 4, 4}, 2, {});
  add("padding", {1, 2, 4, 5}, 3, {.stride = 2, .padding = 1});
  add("overlap", {1, 1, 4, 4}, {2, 3}, {.stride = 1});
  add("dilation", {1, 1, 5, 5}, 2, {.stride = 1, .dilation = 2});
  add("ceil_mode", {1, 2, 5, 5}, 2, {.ceil_mode = true});
  add("unbatched", {2, 4, 4}, 2, {});
  add("empty batch", {0, 2, 4, 4}, 2, {});
  c.add("max_pool2d_with_indices", "", {distinct({1, 2, 4, 4})},
        [](In x) { return max_pool2d_with_indices(x[0], 2).first; });
  c.add("max_pool2d_with_indices", "indices", {distinct({1, 2, 4, 4})}, [](In x) {
     return max_pool2d_with_indices(x[0], 2).second;
   }).constant_result();
  c.add("max_pool1d", "", {distinct({2, 2, 6})}, [](In x) { return max_pool1d(x[0], 2); });
  c.add("max_pool1d", "options", {distinct({2, 7})}, [](In x) { return max_pool1d(x[0], 3, 2, 1); });
}

void add_average_pools(Cases& c) {
  const auto add = [&](const char* what, const Dims& x, const Pair& kernel, const PoolOptions& options) {
    c.add("avg_pool2d", what, {real(x)}, [=](In in) { return avg_pool2d(in[0], kernel, options); }).sum_of(9);
  };
  add("", {2, 2, 4, 4}, 2, {});
  add("padding", {1, 1, 4, 5}, 3, {.stride = 2, .padding = 1});
  add("padding not counted", {1, 1, 4, 5}, 3, {.stride = 2, .padding = 1, .count_include_pad = false});
  add("ceil_mode", {1, 1, 5, 5}, {2, 3}, {.stride = 2, .ceil_mode = true});
  add("ceil_mode, padding", {1, 1, 6, 5}, 3, {.stride = 2, .padding = 1, .ceil_mode = true});
  add("unbatched", {2, 4, 4}, 2, {});
  c.add("avg_pool1d", "", {real({2, 2, 6})}, [](In x) { return avg_pool1d(x[0], 2); }).sum_of(4);
  c.add("avg_pool1d", "options", {real({2, 7})}, [](In x) { return avg_pool1d(x[0], 3, 2, 1); }).sum_of(4);
  const PoolGeometry g{{3, 2}, {2, 1}, {1, 0}, {1, 1}, true};
  c.add("avg_pool2d_grad", "", {real({1, 2, 2, 3})}, [g](In x) {
     return avg_pool2d_grad(x[0], {1, 2, 4, 4}, g);
   }).sum_of(9);
  const auto adaptive = [&](const char* what, const Dims& x, const Pair& output) {
    c.add("adaptive_avg_pool2d", what, {real(x)}, [=](In in) { return adaptive_avg_pool2d(in[0], output); }).sum_of(12);
  };
  adaptive("", {1, 2, 4, 6}, {2, 3});
  adaptive("global", {2, 2, 3, 3}, 1);
  adaptive("overlapping windows", {1, 1, 5, 7}, {3, 2});
  adaptive("more than there is", {1, 1, 2, 3}, {4, 4});
  adaptive("unbatched", {2, 5, 4}, {2, 3});
}

}  // namespace

void add_convolution_cases(Cases& cases) {
  add_convolutions(cases);
  add_transposed(cases);
  add_max_pools(cases);
  add_average_pools(cases);
}

}  // namespace loom::sweep
