// SPDX-License-Identifier: Apache-2.0
// The exact text of what each op says about operands that do not fit: convolution, pooling, networks, losses.
#include "op_sweep/mistakes.h"

using namespace loom;
using namespace loom::sweep;

namespace {

Tensor steps(const Tensor& gates, const Tensor& w, const Tensor& h) {
  return recurrent_steps(RecurrentCell::tanh, gates, w, {}, h, {}, false).first;
}

}  // namespace

TEST_CASE("recurrent steps") {
  check_all({
      {CALL(steps(f({3, 2, 5}), f({4, 4}), f({2, 4}))),
       "recurrent_steps: given gates [3, 2, 5], w_hh [4, 4] and a state [2, 4], expected [T, N, G * H], [G * H, H] and "
       "[N, H]"},
      {CALL(steps(zeros({3, 2, 4}, i64), zeros({4, 4}, i64), zeros({2, 4}, i64))),
       "recurrent_steps: given gates of i64, expected a floating dtype"},
      {CALL(steps(f({3, 2, 4}), zeros({4, 4}, f64), f({2, 4}))),
       "recurrent_steps: dtypes f32 and f64 differ; convert one with .to(dtype)"},
  });
}

TEST_CASE("convolution and pooling") {
  check_all({
      {CALL(conv2d(f({3, 4}), f({1, 3, 2, 2}))), "conv2d: given x of shape [3, 4], expected [N, C, H, W] or [C, H, W]"},
      {CALL(conv2d(f({1, 3, 4, 4}), f({1, 3, 2}))),
       "conv2d: given weight of shape [1, 3, 2], expected [O, C / groups, KH, KW]"},
      {CALL(conv2d(f({1, 3, 4, 4}), f({1, 2, 2, 2}))),
       "conv2d: the input of shape [1, 3, 4, 4] has 3 channels, weight [1, 2, 2, 2] with 1 group expects 2"},
      {CALL(conv2d(f({1, 3, 4, 4}), f({2, 3, 5, 2}))),
       "conv2d: the kernel reaches over 5 positions, more than the padded input's 4 (height; input [1, 3, 4, 4], "
       "weight [2, 3, 5, 2], padding [0, 0], dilation [1, 1])"},
      {CALL(conv2d(f({1, 4, 4, 4}), f({3, 2, 2, 2}), {}, {.groups = 2})),
       "conv2d: 3 output channels do not divide into 2 groups"},
      {CALL(conv2d(f({1, 3, 4, 4}), f({2, 3, 2, 2}), f({3}))), "conv2d: bias must be [2], got shape [3]"},
      {CALL(conv2d(f({1, 3, 4, 4}), f({2, 3, 2, 2}), {}, {.stride = 0})),
       "conv2d: stride must be positive, got [0, 0]"},
      {CALL(conv2d(f({1, 3, 4, 4}), zeros({2, 3, 2, 2}, f64))),
       "conv2d: dtypes f32 and f64 differ; convert one with .to(dtype)"},
      {CALL(conv1d(f({4}), f({1, 1, 2}))), "conv1d: given x of shape [4], expected [N, C, L] or [C, L]"},
      {CALL(conv1d(f({1, 4}), f({1, 1, 2, 2}))),
       "conv1d: given weight of shape [1, 1, 2, 2], expected [O, C / groups, K]"},
      {CALL(conv1d(f({1, 2, 5}), f({1, 1, 2}))),
       "conv1d: the input of shape [1, 2, 5] has 2 channels, weight [1, 1, 2] with 1 group expects 1"},
      {CALL(conv1d(f({2, 5}), f({1, 2, 6}))),
       "conv1d: the kernel reaches over 6 positions, more than the padded input's 5 (input [2, 5], weight [1, 2, 6], "
       "padding 0, dilation 1)"},
      {CALL(conv1d(f({1, 2, 5}), f({3, 1, 2}), {}, {.groups = 2})),
       "conv1d: 3 output channels do not divide into 2 groups"},
      {CALL(conv1d(f({1, 2, 5}), f({1, 2, 2}), {}, {.stride = 0})), "conv1d: stride must be positive, got 0"},
      {CALL(conv1d(f({1, 2, 5}), f({1, 2, 2}), {}, {.padding = -1})), "conv1d: padding must not be negative, got -1"},
      {CALL(conv1d(f({1, 2, 5}), f({1, 2, 2}), {}, {.dilation = 0})), "conv1d: dilation must be positive, got 0"},
      {CALL(conv1d(f({1, 2, 5}), f({1, 2, 2}), {}, {.groups = 0})), "conv1d: groups must be positive, got 0"},
      {CALL(conv1d(f({1, 2, 5}), f({1, 2, 0}))), "conv1d: the kernel of weight [1, 2, 0] is empty"},
      {CALL(conv1d(f({1, 2, 5}), f({1, 2, 2}), f({3}))), "conv1d: bias must be [1], got shape [3]"},
      {CALL(conv1d(f({1, 2, 5}), zeros({1, 2, 2}, f64))),
       "conv1d: dtypes f32 and f64 differ; convert one with .to(dtype)"},
      {CALL(conv_transpose2d(f({1, 3, 4, 4}), f({3, 2, 2, 2}), {}, {.stride = 0})),
       "conv_transpose2d: stride must be positive, got [0, 0]"},
      {CALL(conv_transpose2d(f({1, 3, 4, 4}), zeros({3, 2, 2, 2}, f64))),
       "conv_transpose2d: dtypes f32 and f64 differ; convert one with .to(dtype)"},
      {CALL(conv_transpose2d(f({1, 3, 4, 4}), f({2, 3, 2, 2}))),
       "conv_transpose2d: given x of shape [1, 3, 4, 4] and weight of shape [2, 3, 2, 2], expected as many channels in "
       "x as weight has rows (the weight of a transposed convolution is [C, O / groups, KH, KW])"},
      {CALL(conv_transpose2d(f({1, 3, 4, 4}), f({3, 2, 2, 2}), f({3}))),
       "conv_transpose2d: given bias of shape [3], expected [2]"},
      {CALL(conv_transpose2d(f({1, 3, 4, 4}), f({3, 2, 2, 2}), {}, {.output_padding = 1})),
       "conv_transpose2d: given output_padding 1 with stride 1 and dilation 1, expected less than one of them"},
      {CALL(conv_transpose2d(f({1, 3, 1, 1}), f({3, 2, 2, 2}), {}, {.padding = 2})),
       "conv_transpose2d: given x of shape [1, 3, 1, 1], expected one whose result has positions, not [1, 2, -2, -2] "
       "(too much padding)"},
      {CALL(conv2d_grad_input(f({1, 1, 2, 2}), f({1, 1, 2, 2}), {1, 1, 4, 4}, {})),
       "conv2d_grad_input: dy must have shape [1, 1, 3, 3], got [1, 1, 2, 2]"},
      {CALL(conv2d_grad_weight(f({1, 1, 2, 2}), f({1, 1, 4, 4}), {1, 1, 2, 2}, {})),
       "conv2d_grad_weight: dy must have shape [1, 1, 3, 3], got [1, 1, 2, 2]"},
      {CALL(max_pool2d(f({4, 4}), 2)), "max_pool2d: given x of shape [4, 4], expected [N, C, H, W] or [C, H, W]"},
      {CALL(max_pool2d(f({1, 4, 4}), 5)),
       "max_pool2d: the kernel reaches over 5 positions, more than the padded input's 4 (height)"},
      {CALL(max_pool2d(f({1, 4, 4}), 2, {.padding = 2})),
       "max_pool2d: padding 2 must be between 0 and half of the kernel's reach 2"},
      {CALL(max_pool2d(i({1, 4, 4}), 2)), "max_pool2d: expects a floating dtype, got i64"},
      {CALL(avg_pool2d(f({1, 4, 4}), 2, {.dilation = 2})),
       "avg_pool2d: given dilation 2 x 2, expected 1: averages have none"},
      {CALL(avg_pool2d(f({1, 4, 4}), 0)), "avg_pool2d: kernel must be positive, got [0, 0]"},
      {CALL(max_pool1d(f({4}), 2)), "max_pool1d: given x of shape [4], expected [N, C, L] or [C, L]"},
      {CALL(max_pool1d(f({1, 2, 3}), 4)),
       "max_pool1d: the kernel reaches over 4 positions, more than the padded input's 3"},
      {CALL(max_pool1d(f({1, 2, 3}), 2, 1, 2)), "max_pool1d: padding 2 must be between 0 and half of the kernel 2"},
      {CALL(max_pool1d(f({1, 2, 3}), 0)), "max_pool1d: kernel must be positive, got 0"},
      {CALL(max_pool1d(i({1, 2, 3}), 2)), "max_pool1d: expects a floating dtype, got i64"},
      {CALL(avg_pool1d(f({4}), 2)), "avg_pool1d: given x of shape [4], expected [N, C, L] or [C, L]"},
      {CALL(avg_pool1d(f({1, 2, 3}), 2, 0)), "avg_pool1d: stride must be positive, got 0"},
      {CALL(max_pool2d_with_indices(f({4, 4}), 2)),
       "max_pool2d_with_indices: given x of shape [4, 4], expected [N, C, H, W] or [C, H, W]"},
      {CALL(adaptive_avg_pool2d(i({1, 4, 4}), 2)), "adaptive_avg_pool2d: expects a floating dtype, got i64"},
      {CALL(adaptive_avg_pool2d(i({1, 4, 4}), 3)), "adaptive_avg_pool2d: expects a floating dtype, got i64"},
      {CALL(adaptive_avg_pool2d(f({1, 4, 4}), {0, 1})),
       "adaptive_avg_pool2d: given an output of 0 x 1, expected at least 1 x 1"},
      {CALL(adaptive_avg_pool2d(f({1, 0, 4}), 1)),
       "adaptive_avg_pool2d: given x of shape [1, 0, 4], expected planes that are not empty"},
      {CALL(avg_pool2d_grad(f({1, 1, 3, 3}), {1, 1, 4, 4}, {.kernel = {2, 2}, .stride = {2, 2}})),
       "avg_pool2d_grad: dy must have shape [1, 1, 2, 2] (or [1, 1, 2, 2] with ceil_mode), got [1, 1, 3, 3]"},
  });
}

TEST_CASE("networks") {
  check_all({
      {CALL(softmax(f({2}), 1)), "softmax: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(softmax(i({2}), 0)), "softmax: expects a floating dtype, got i64"},
      {CALL(log_softmax(f({2}), 1)), "log_softmax: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(softmin(f({2}), 1)), "softmin: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(softmin(i({2}), 0)), "softmin: expects a floating dtype, got i64"},
      {CALL(log_softmax_grad(f({2}), f({3}), 0)), "log_softmax_grad: dy of shape [2] and y of shape [3] differ"},
      {CALL(softmax_grad(f({2}), f({3}), 0)), "softmax_grad: dy of shape [2] and y of shape [3] differ"},
      {CALL(layer_norm(f({2, 3}), {2})),
       "layer_norm: given x of shape [2, 3] and normalized shape [2], expected x to end in that shape"},
      {CALL(layer_norm(f({2, 3}), {3}, f({2}))), "layer_norm: given weight of shape [2], expected [3]"},
      {CALL(layer_norm(f({2, 3}), {3}, zeros({3}, f64))),
       "layer_norm: given weight of f64 and x of f32, expected weight to be f32"},
      {CALL(layer_norm(f({2, 3}).to(bf16), {3}, zeros({3}, f64))),
       "layer_norm: given weight of f64 and x of bf16, expected weight to be bf16 or f32"},
      {CALL(layer_norm(i({2, 3}), {3})), "layer_norm: given x of i64, expected a floating dtype"},
      {CALL(rms_norm(f({2, 3}), {})),
       "rms_norm: given x of shape [2, 3] and normalized shape [], expected x to end in that shape"},
      {CALL(rms_norm(f({2, 3}), {2})),
       "rms_norm: given x of shape [2, 3] and normalized shape [2], expected x to end in that shape"},
      {CALL(rms_norm(f({2, 3}), {3}, f({2}))), "rms_norm: given weight of shape [2], expected [3]"},
      {CALL(group_norm(f({2, 4}), 2, f({2}))), "group_norm: given weight of shape [2], expected [4]"},
      {CALL(group_norm(f({2, 4}), 2, f({4}), f({2}))), "group_norm: given bias of shape [2], expected [4]"},
      {CALL(group_norm(f({2, 3}), 2)),
       "group_norm: given 2 groups for x of shape [2, 3], expected groups that divide its 3 channels"},
      {CALL(group_norm(f({2}), 1)), "group_norm: given x of shape [2], expected [N, C, ..]"},
      {CALL(batch_norm(f({2, 3}), {}, {})), "batch_norm: given no running statistics, expected them unless training"},
      {CALL(batch_norm(f({2, 3}), f({3}), {})),
       "batch_norm: given only one of running_mean and running_var, expected both"},
      {CALL(batch_norm(f({2, 3}), f({2}), f({2}))),
       "batch_norm: given running_mean of shape [2] for x of shape [2, 3], expected [3]"},
      {CALL(batch_norm(f({1, 3}), {}, {}, {}, {}, true)),
       "batch_norm: given x of shape [1, 3] in training, expected more than 1 value per channel (their variance is 0; "
       "use a larger batch or eval)"},
      {CALL(batch_norm(f({3}), {}, {}, {}, {}, true)), "batch_norm: given x of shape [3], expected [N, C, ..]"},
      {CALL(dropout(f({2}), 1.5)), "dropout: given probability 1.5, expected one in [0, 1]"},
      {CALL(dropout(i({2}), 0.5)), "dropout: given x of i64, expected a floating dtype"},
      {CALL(scaled_dot_product_attention(f({2, 3}), f({2, 4}), f({2, 3}))),
       "scaled_dot_product_attention: given q [2, 3], k [2, 4], v [2, 3], expected q [.., Tq, d], k [.., Tk, d], v "
       "[.., Tk, dv]"},
      {CALL(scaled_dot_product_attention(i({2, 3}), f({2, 3}), f({2, 3}))),
       "scaled_dot_product_attention: dtypes i64 and f32 differ; convert one with .to(dtype)"},
      {CALL(scaled_dot_product_attention(i({2, 3}), i({2, 3}), i({2, 3}))),
       "scaled_dot_product_attention: expects a floating dtype, got i64"},
      {CALL(scaled_dot_product_attention(f({2, 3}), f({2, 3}), f({2, 3}), {.mask = f({2, 2}), .is_causal = true})),
       "scaled_dot_product_attention: given a mask and is_causal, expected at most one of them"},
      {CALL(scaled_dot_product_attention(f({2, 3}), f({2, 3}), f({2, 3}), {.mask = f({3, 2})})),
       "scaled_dot_product_attention: shapes [2, 2] and [3, 2] do not broadcast (dimension 0)"},
      {CALL(scaled_dot_product_attention(f({2, 3}), f({2, 3}), f({2, 3}), {.mask = zeros({3, 2}, boolean)})),
       "scaled_dot_product_attention: shapes [3, 2] and [2, 2] do not broadcast (dimension 0)"},
      {CALL(scaled_dot_product_attention(f({2, 3}), f({2, 3}), f({2, 3}), {.dropout = 2})),
       "scaled_dot_product_attention: given probability 2, expected one in [0, 1]"},
      {CALL(scaled_dot_product_attention(f({2, 3}), f({2, 3}), f({2, 3}), {.mask = i({2, 2})})),
       "scaled_dot_product_attention: given a mask of i64, expected boolean (true: attend) or floating (added to the "
       "scores)"},
  });
}

TEST_CASE("losses") {
  check_all({
      {CALL(cross_entropy(f({}), i({}))),
       "cross_entropy: given a 0-dimensional input, expected [C], [N, C] or [N, C, d1, ..]"},
      {CALL(cross_entropy(f({2, 3}), i({3}))),
       "cross_entropy: given an input of shape [2, 3] and class indices (i64) of shape [3], expected class indices of "
       "shape [2]"},
      {CALL(cross_entropy(f({2, 3}), tensor({0, 3}))),
       "cross_entropy: target 3 at row 1 is out of range for 3 classes (ignore_index is -100)"},
      {CALL(cross_entropy(f({2, 3}), zeros({2}, i32))),
       "cross_entropy: given a target of i32, expected class indices (i64) or probabilities (floating)"},
      {CALL(cross_entropy(f({2, 3}), f({3, 2}))),
       "cross_entropy: given an input of shape [2, 3] and probabilities (f32) of shape [3, 2], expected equal shapes, "
       "or "
       "class indices (i64)"},
      {CALL(cross_entropy(f({2, 3}), f({2, 3}), {.ignore_index = 1})),
       "cross_entropy: given ignore_index 1 and probabilities, expected class indices with it"},
      {CALL(cross_entropy(f({2, 3}), i({2}), {.weight = f({2})})),
       "cross_entropy: given weight of shape [2], expected [3]"},
      {CALL(cross_entropy(f({2, 3}), i({2}), {.weight = zeros({3}, f64)})),
       "cross_entropy: given weight of f64 for an input of f32, expected the same"},
      {CALL(cross_entropy(f({2, 3}), i({2}), {.weight = f({3}).requires_grad_()})),
       "cross_entropy: given a weight that requires grad, expected a constant; detach it"},
      {CALL(cross_entropy(f({2, 3}), i({2}), {.label_smoothing = 1.5})),
       "cross_entropy: given label_smoothing 1.5, expected a number in [0, 1]"},
      {CALL(cross_entropy(i({2, 3}), i({2}))), "cross_entropy: given an input of i64, expected a floating dtype"},
      {CALL(nll_loss(f({2, 3}), f({2}))), "nll_loss: given a target of f32, expected class indices (i64)"},
      {CALL(nll_loss(f({2, 3}), i({3}))),
       "nll_loss: given an input of shape [2, 3] and class indices (i64) of shape [3], expected class indices of shape "
       "[2]"},
      {CALL(nll_loss(f({2, 3}), tensor({0, 3}))), "nll_loss: index 3 is out of range for dimension 1 of size 3"},
      {CALL(nll_loss(f({2, 3}), i({2}), {.weight = f({2})})), "nll_loss: given weight of shape [2], expected [3]"},
      {CALL(smooth_l1_loss(f({2, 1}), f({2}))),
       "smooth_l1_loss: given x of shape [2, 1] and target of shape [2], expected equal shapes"},
      {CALL(huber_loss(f({2, 1}), f({2}))),
       "huber_loss: given x of shape [2, 1] and target of shape [2], expected equal shapes"},
      {CALL(mse_loss(f({2, 1}), f({2}))),
       "mse_loss: given x of shape [2, 1] and target of shape [2], expected equal shapes"},
      {CALL(l1_loss(f({2, 1}), f({2}))),
       "l1_loss: given x of shape [2, 1] and target of shape [2], expected equal shapes"},
      {CALL(smooth_l1_loss(f({2}), f({2}), Reduction::mean, -1)), "smooth_l1_loss: given beta -1, expected at least 0"},
      {CALL(huber_loss(f({2}), f({2}), Reduction::mean, 0)), "huber_loss: given delta 0, expected more than 0"},
      {CALL(binary_cross_entropy(f({2, 1}), f({2}))),
       "binary_cross_entropy: given x of shape [2, 1] and target of shape [2], expected equal shapes"},
      {CALL(binary_cross_entropy(tensor({2.0, -1.0}), f({2}))),
       "binary_cross_entropy: given x from -1 to 2, expected probabilities in [0, 1]; for logits there is "
       "binary_cross_entropy_with_logits"},
      {CALL(binary_cross_entropy_with_logits(f({2, 1}), f({2}))),
       "binary_cross_entropy_with_logits: given x of shape [2, 1] and target of shape [2], expected equal shapes"},
      {CALL(mse_loss(i({2}), i({2}))), "mse_loss: expects a floating dtype, got i64"},
      {CALL(l1_loss(i({2}), i({2}))), "l1_loss: expects a floating dtype, got i64"},
      {CALL(huber_loss(zeros({2}, boolean), zeros({2}, boolean))),
       "huber_loss: not defined for boolean tensors; use logical_xor, or logical_not for the inverse of a mask"},
      {CALL(binary_cross_entropy(f({2}), f({2}), f({3}))),
       "binary_cross_entropy: shapes [2] and [3] do not broadcast (dimension 0)"},
      {CALL(binary_cross_entropy_with_logits(f({2}), f({2}), f({3}))),
       "binary_cross_entropy_with_logits: shapes [2] and [3] do not broadcast (dimension 0)"},
      {CALL(binary_cross_entropy_with_logits(f({2}), f({2}), {}, Reduction::mean, f({3}))),
       "binary_cross_entropy_with_logits: shapes [3] and [2] do not broadcast (dimension 0)"},
      {CALL(kl_div(f({2, 1}), f({2}))),
       "kl_div: given x of shape [2, 1] and target of shape [2], expected equal shapes"},
      {CALL(kl_div(f({}), f({}), KlReduction::batchmean)),
       "kl_div: given 0-dimensional inputs and batchmean, expected a batch dimension"},
  });
}
