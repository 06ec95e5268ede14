// SPDX-License-Identifier: Apache-2.0
// Operators of networks with their gradients against PyTorch; the cases are those of tests/golden/operator_cases.py.
#include <loom/autograd/ops/derivatives.h>

#include "golden_case.h"

namespace {

using namespace loom;
using golden::Args;
using golden::Case;

Tensor target() { return tensor({1, 0, 4, 2}); }
Tensor ignoring() { return tensor({1, -100, 4, 2}); }
constexpr auto none = Reduction::none, total = Reduction::sum, average = Reduction::mean;

const std::vector<Case> linear_algebra = {
    {"linear", [](const Args& x) { return linear(x[0], x[1], x[2]); }},
    {"linear/no_bias", [](const Args& x) { return linear(x[0], x[1]); }},
    {"matmul", [](const Args& x) { return matmul(x[0], x[1]); }},
    {"matmul/broadcast", [](const Args& x) { return matmul(x[0], x[1]); }},
    {"matmul/vector", [](const Args& x) { return matmul(x[0], x[1]); }},
    {"matmul/vectors", [](const Args& x) { return matmul(x[0], x[1]); }},
    {"matmul/vector_first", [](const Args& x) { return matmul(x[0], x[1]); }},
    {"mm", [](const Args& x) { return mm(x[0], x[1]); }},
    {"bmm", [](const Args& x) { return bmm(x[0], x[1]); }},
    {"addmm", [](const Args& x) { return addmm(x[0], x[1], x[2], 0.5, 2); }},
    {"dot", [](const Args& x) { return dot(x[0], x[1]); }},
    {"outer", [](const Args& x) { return outer(x[0], x[1]); }},
    {"einsum",
     [](const Args& x) {
       return einsum("bij,bkj->bik", {x[0], x[1]});
     }},
    {"einsum/ellipsis",
     [](const Args& x) {
       return einsum("...i,ij->...j", {x[0], x[1]});
     }},
    {"einsum/one", [](const Args& x) { return einsum("ij->j", {x[0]}); }},
};

const std::vector<Case> attention = {
    {"scaled_dot_product_attention", [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2]); }},
    {"scaled_dot_product_attention/causal",
     [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.is_causal = true}); }},
    {"scaled_dot_product_attention/causal_rectangle",
     [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.is_causal = true}); }},
    {"scaled_dot_product_attention/mask",
     [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.mask = x[3], .scale = 0.3}); }},
    {"scaled_dot_product_attention/added",
     [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.mask = x[3].detach()}); }},
    {"scaled_dot_product_attention/blind_row",
     [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.mask = x[3]}); }},
};

const ConvGeometry stride_two{.stride = {2, 2}, .padding = {1, 1}, .dilation = {1, 1}, .groups = 1};

const std::vector<Case> convolutions = {
    {"conv1d", [](const Args& x) { return conv1d(x[0], x[1], x[2], {.stride = 2, .padding = 1, .dilation = 2}); }},
    {"conv2d", [](const Args& x) { return conv2d(x[0], x[1], x[2]); }},
    {"conv2d/geometry",
     [](const Args& x) {
       return conv2d(x[0], x[1], x[2], {.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}});
     }},
    {"conv2d/groups", [](const Args& x) { return conv2d(x[0], x[1], {}, {.padding = 1, .groups = 2}); }},
    {"conv2d/depthwise", [](const Args& x) { return conv2d(x[0], x[1], x[2], {.padding = 1, .groups = 3}); }},
    {"conv2d/pointwise", [](const Args& x) { return conv2d(x[0], x[1], x[2]); }},
    {"conv2d/unbatched", [](const Args& x) { return conv2d(x[0], x[1], x[2]); }},
    {"conv2d_grad_input",
     [](const Args& x) {
       return conv2d_grad_input(x[0], x[1], {2, 3, 6, 5}, stride_two);
     }},
    {"conv2d_grad_weight",
     [](const Args& x) {
       return conv2d_grad_weight(x[0], x[1], {4, 3, 3, 3}, stride_two);
     }},
    {"conv_transpose2d",
     [](const Args& x) {
       return conv_transpose2d(x[0], x[1], x[2], {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2});
     }},
    {"conv_transpose2d/dilation",
     [](const Args& x) {
       return conv_transpose2d(x[0], x[1], {}, {.stride = {2, 1}, .padding = {1, 0}, .dilation = {2, 1}});
     }},
};

const PoolGeometry strided_pool{.kernel = {3, 2}, .stride = {2, 2}, .padding = {1, 0}};

const std::vector<Case> pools = {
    {"max_pool2d", [](const Args& x) { return max_pool2d(x[0], 3, {.stride = 2, .padding = 1}); }},
    {"max_pool2d/ceil", [](const Args& x) { return max_pool2d(x[0], 2, {.stride = 2, .ceil_mode = true}); }},
    {"max_pool2d/ceil_padding",
     [](const Args& x) {
       return max_pool2d(x[0], {3, 2}, {.stride = Pair(2, 3), .padding = {1, 0}, .ceil_mode = true});
     }},
    {"max_pool2d/dilation", [](const Args& x) { return max_pool2d(x[0], 2, {.stride = 1, .dilation = 2}); }},
    {"max_pool2d/unbatched", [](const Args& x) { return max_pool2d(x[0], 2); }},
    {"max_pool2d_with_indices", [](const Args& x) { return max_pool2d_with_indices(x[0], 2, {.stride = 1}); }},
    {"max_pool1d", [](const Args& x) { return max_pool1d(x[0], 3, 2, 1); }},
    {"avg_pool2d", [](const Args& x) { return avg_pool2d(x[0], 3, {.stride = 2, .padding = 1}); }},
    {"avg_pool2d/ceil",
     [](const Args& x) {
       return avg_pool2d(x[0], 3, {.stride = 2, .padding = 1, .ceil_mode = true, .count_include_pad = false});
     }},
    {"avg_pool2d/ceil_counted",
     [](const Args& x) {
       return avg_pool2d(x[0], {3, 2}, {.stride = Pair(2, 3), .padding = {1, 0}, .ceil_mode = true});
     }},
    {"avg_pool2d/uncounted",
     [](const Args& x) {
       return avg_pool2d(x[0], {2, 3}, {.stride = 1, .padding = {0, 1}, .count_include_pad = false});
     }},
    {"avg_pool2d_grad",
     [](const Args& x) {
       return avg_pool2d_grad(x[0], {1, 2, 5, 6}, strided_pool);
     }},
    {"avg_pool1d", [](const Args& x) { return avg_pool1d(x[0], 3, 2, 1); }},
    {"adaptive_avg_pool2d",
     [](const Args& x) {
       return adaptive_avg_pool2d(x[0], {3, 4});
     }},
    {"adaptive_avg_pool2d/larger",
     [](const Args& x) {
       return adaptive_avg_pool2d(x[0], {5, 1});
     }},
};

const std::vector<Case> normalisations = {
    {"layer_norm",
     [](const Args& x) {
       return layer_norm(x[0], {3, 4}, x[1], x[2]);
     }},
    {"layer_norm/plain", [](const Args& x) { return layer_norm(x[0], {4}, {}, {}, 0.1); }},
    {"rms_norm", [](const Args& x) { return rms_norm(x[0], {4}, x[1], 1e-6); }},
    {"group_norm", [](const Args& x) { return group_norm(x[0], 2, x[1], x[2]); }},
    {"group_norm/plain", [](const Args& x) { return group_norm(x[0], 4, {}, {}, 0.01); }},
    {"add_layer_norm",
     [](const Args& x) {
       return add_layer_norm(x[0], x[1], {3, 4}, x[2], x[3]);
     }},
    {"add_rms_norm", [](const Args& x) { return add_rms_norm(x[0], x[1], {4}, x[2], 0.1); }},
    {"gelu_mlp", [](const Args& x) { return gelu_mlp(x[0], x[1], x[2], x[3], x[4]); }},
    {"batch_norm_relu", [](const Args& x) { return batch_norm_relu(x[0], x[1], {}, {}, x[2], x[3], true); }},
    {"batch_norm_relu/evaluation",
     [](const Args& x) { return batch_norm_relu(x[0], {}, x[1].detach(), x[2].detach(), x[3], x[4]); }},
    {"batch_norm", [](const Args& x) { return batch_norm(x[0], {}, {}, x[1], x[2], true); }},
    {"batch_norm/evaluation", [](const Args& x) { return batch_norm(x[0], x[1].detach(), x[2].detach(), x[3], x[4]); }},
    {"dropout/all", [](const Args& x) { return dropout(x[0], 1); }},
    {"dropout/evaluation", [](const Args& x) { return dropout(x[0], 0.5, false) * 1.0; }},
    {"softmax", [](const Args& x) { return softmax(x[0], 0); }},
    {"softmax/infinite", [](const Args& x) { return softmax(x[0], 1); }},
    {"softmax/large", [](const Args& x) { return softmax(x[0], 1); }},
    {"log_softmax", [](const Args& x) { return log_softmax(x[0], -1); }},
    {"log_softmax/infinite", [](const Args& x) { return log_softmax(x[0], 1); }},
    {"softmin", [](const Args& x) { return softmin(x[0], 1); }},
    {"softmax_grad", [](const Args& x) { return softmax_grad(x[0], x[1], 1); }},
    {"log_softmax_grad", [](const Args& x) { return log_softmax_grad(x[0], x[1], 0); }},
    {"logsumexp",
     [](const Args& x) {
       return logsumexp(x[0], {0, 2});
     }},
    {"logsumexp/keepdim", [](const Args& x) { return logsumexp(x[0], {1}, true); }},
    {"logsumexp/infinite", [](const Args& x) { return logsumexp(x[0], {1}); }},
    {"glu", [](const Args& x) { return glu(x[0], 1); }},
    {"prelu", [](const Args& x) { return prelu(x[0], x[1]); }},
    {"prelu/one", [](const Args& x) { return prelu(x[0], x[1]); }},
    {"lerp", [](const Args& x) { return lerp(x[0], x[1], x[2]); }},
    {"lerp/number", [](const Args& x) { return lerp(x[0], x[1], 0.7); }},
};

const std::vector<Case> classification = {
    {"cross_entropy", [](const Args& x) { return cross_entropy(x[0], target()); }},
    {"cross_entropy/weight",
     [](const Args& x) { return cross_entropy(x[0], target(), {.weight = x[1].detach(), .label_smoothing = 0.2}); }},
    {"cross_entropy/weight_sum",
     [](const Args& x) {
       return cross_entropy(x[0], ignoring(), {.weight = x[1].detach(), .reduction = total, .label_smoothing = 0.2});
     }},
    {"cross_entropy/ignore", [](const Args& x) { return cross_entropy(x[0], ignoring(), {.label_smoothing = 0.1}); }},
    {"cross_entropy/ignore_class", [](const Args& x) { return cross_entropy(x[0], target(), {.ignore_index = 4}); }},
    {"cross_entropy/none", [](const Args& x) { return cross_entropy(x[0], ignoring(), {.reduction = none}); }},
    {"cross_entropy/dense", [](const Args& x) { return cross_entropy(x[0], x[1].detach(), {.label_smoothing = 0.1}); }},
    {"cross_entropy/dense_weight",
     [](const Args& x) { return cross_entropy(x[0], x[1].detach(), {.weight = x[2].detach(), .reduction = none}); }},
    {"cross_entropy/2d", [](const Args& x) { return cross_entropy(x[0], x[1]); }},
    {"cross_entropy/unbatched", [](const Args& x) { return cross_entropy(x[0], tensor({3})[0]); }},
    {"cross_entropy/infinite",
     [](const Args& x) {
       return cross_entropy(x[0], tensor({1, 0}), {.reduction = none});
     }},
    {"nll_loss", [](const Args& x) { return nll_loss(x[0], ignoring(), {.reduction = total}); }},
    {"nll_loss/weight", [](const Args& x) { return nll_loss(x[0], ignoring(), {.weight = x[1].detach()}); }},
    {"nll_loss/none",
     [](const Args& x) { return nll_loss(x[0], target(), {.weight = x[1].detach(), .reduction = none}); }},
    {"binary_cross_entropy", [](const Args& x) { return binary_cross_entropy(x[0], x[1].detach()); }},
    {"binary_cross_entropy/weight",
     [](const Args& x) { return binary_cross_entropy(x[0], x[1].detach(), x[2].detach(), total); }},
    {"binary_cross_entropy/ends", [](const Args& x) { return binary_cross_entropy(x[0], x[1].detach(), {}, none); }},
    {"binary_cross_entropy_with_logits",
     [](const Args& x) { return binary_cross_entropy_with_logits(x[0], x[1].detach(), {}, average, x[2].detach()); }},
    {"binary_cross_entropy_with_logits/weight",
     [](const Args& x) { return binary_cross_entropy_with_logits(x[0], x[1].detach(), x[2].detach(), none); }},
};

const std::vector<Case> distances = {
    {"mse_loss", [](const Args& x) { return mse_loss(x[0], x[1]); }},
    {"mse_loss/sum", [](const Args& x) { return mse_loss(x[0], x[1], total); }},
    {"mse_loss/none", [](const Args& x) { return mse_loss(x[0], x[1], none); }},
    {"l1_loss", [](const Args& x) { return l1_loss(x[0], x[1]); }},
    {"l1_loss/sum", [](const Args& x) { return l1_loss(x[0], x[1], total); }},
    {"l1_loss/none", [](const Args& x) { return l1_loss(x[0], x[1], none); }},
    {"smooth_l1_loss", [](const Args& x) { return smooth_l1_loss(x[0], x[1], average, 0.5); }},
    {"smooth_l1_loss/corner", [](const Args& x) { return smooth_l1_loss(x[0], x[1], total, 0); }},
    {"huber_loss", [](const Args& x) { return huber_loss(x[0], x[1], average, 0.7); }},
    {"huber_loss/none", [](const Args& x) { return huber_loss(x[0], x[1], none, 0.5); }},
    {"kl_div", [](const Args& x) { return kl_div(x[0], x[1].detach(), KlReduction::batchmean, true); }},
    {"kl_div/zero", [](const Args& x) { return kl_div(x[0], x[1].detach(), KlReduction::none); }},
};

}  // namespace

golden::Groups golden::operator_cases() {
  return {linear_algebra, attention, convolutions, pools, normalisations, classification, distances};
}

TEST_CASE("operators and their gradients are PyTorch's") { golden::check_cases("operators", golden::operator_cases()); }
