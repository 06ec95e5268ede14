// SPDX-License-Identifier: Apache-2.0
// Operators with their gradients against PyTorch; the cases are those of tests/golden/cases.py.
#include <functional>

#include "golden.h"

namespace {

using namespace loom;
using Args = std::vector<Tensor>;
using Case = std::pair<const char*, std::function<Tensor(const Args&)>>;

Tensor target() { return tensor({1, 0, 4, 2}); }
Tensor ignoring() { return tensor({1, -100, 4, 2}); }

const std::vector<Case> linear_algebra = {
    {"linear", [](const Args& x) { return linear(x[0], x[1], x[2]); }},
    {"matmul_broadcast", [](const Args& x) { return matmul(x[0], x[1]); }},
    {"matmul_vector", [](const Args& x) { return matmul(x[0], x[1]); }},
    {"einsum",
     [](const Args& x) {
       return einsum("bij,bkj->bik", {x[0], x[1]});
     }},
    {"attention", [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2]); }},
    {"attention_causal",
     [](const Args& x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.is_causal = true}); }},
    {"attention_mask",
     [](const Args& x) {
       return scaled_dot_product_attention(x[0], x[1], x[2], {.mask = x[3].to(DType::boolean), .scale = 0.3});
     }},
};

const std::vector<Case> convolutions = {
    {"conv1d", [](const Args& x) { return conv1d(x[0], x[1], x[2], {.stride = 2, .padding = 1, .dilation = 2}); }},
    {"conv2d", [](const Args& x) { return conv2d(x[0], x[1], x[2]); }},
    {"conv2d_geometry",
     [](const Args& x) {
       return conv2d(x[0], x[1], x[2], {.stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}});
     }},
    {"conv2d_groups", [](const Args& x) { return conv2d(x[0], x[1], {}, {.padding = 1, .groups = 2}); }},
    {"conv2d_depthwise", [](const Args& x) { return conv2d(x[0], x[1], x[2], {.padding = 1, .groups = 3}); }},
    {"conv2d_pointwise", [](const Args& x) { return conv2d(x[0], x[1], x[2]); }},
    {"conv2d_unbatched", [](const Args& x) { return conv2d(x[0], x[1], x[2]); }},
    {"conv_transpose2d",
     [](const Args& x) {
       return conv_transpose2d(x[0], x[1], x[2], {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2});
     }},
    {"max_pool2d", [](const Args& x) { return max_pool2d(x[0], 3, {.stride = 2, .padding = 1}); }},
    {"max_pool2d_ceil", [](const Args& x) { return max_pool2d(x[0], 2, {.stride = 2, .ceil_mode = true}); }},
    {"max_pool2d_dilation", [](const Args& x) { return max_pool2d(x[0], 2, {.stride = 1, .dilation = 2}); }},
    {"max_pool1d", [](const Args& x) { return max_pool1d(x[0], 3, 2, 1); }},
    {"avg_pool2d", [](const Args& x) { return avg_pool2d(x[0], 3, {.stride = 2, .padding = 1}); }},
    {"avg_pool2d_ceil",
     [](const Args& x) {
       return avg_pool2d(x[0], 3, {.stride = 2, .padding = 1, .ceil_mode = true, .count_include_pad = false});
     }},
    {"avg_pool1d", [](const Args& x) { return avg_pool1d(x[0], 3, 2, 1); }},
    {"adaptive_avg_pool2d",
     [](const Args& x) {
       return adaptive_avg_pool2d(x[0], {3, 4});
     }},
};

const std::vector<Case> normalisations = {
    {"layer_norm",
     [](const Args& x) {
       return layer_norm(x[0], {3, 4}, x[1], x[2]);
     }},
    {"rms_norm", [](const Args& x) { return rms_norm(x[0], {4}, x[1], 1e-6); }},
    {"group_norm", [](const Args& x) { return group_norm(x[0], 2, x[1], x[2]); }},
    {"batch_norm", [](const Args& x) { return batch_norm(x[0], {}, {}, x[1], x[2], true); }},
    {"softmax", [](const Args& x) { return softmax(x[0], 0); }},
    {"log_softmax", [](const Args& x) { return log_softmax(x[0], -1); }},
    {"logsumexp",
     [](const Args& x) {
       return logsumexp(x[0], {0, 2});
     }},
    {"gelu", [](const Args& x) { return gelu(x[0]); }},
    {"gelu_tanh", [](const Args& x) { return gelu_tanh(x[0]); }},
    {"silu", [](const Args& x) { return silu(x[0]); }},
    {"elu", [](const Args& x) { return elu(x[0]); }},
    {"softplus", [](const Args& x) { return softplus(x[0]); }},
    {"mish", [](const Args& x) { return mish(x[0]); }},
    {"hardswish", [](const Args& x) { return hardswish(x[0]); }},
    {"leaky_relu", [](const Args& x) { return leaky_relu(x[0]); }},
    {"selu", [](const Args& x) { return selu(x[0]); }},
    {"logsigmoid", [](const Args& x) { return logsigmoid(x[0]); }},
    {"glu", [](const Args& x) { return glu(x[0], 1); }},
    {"prelu", [](const Args& x) { return prelu(x[0], x[1]); }},
};

const std::vector<Case> losses = {
    {"cross_entropy", [](const Args& x) { return cross_entropy(x[0], target()); }},
    {"cross_entropy_weight",
     [](const Args& x) { return cross_entropy(x[0], target(), {.weight = x[1].detach(), .label_smoothing = 0.2}); }},
    {"cross_entropy_ignore", [](const Args& x) { return cross_entropy(x[0], ignoring(), {.label_smoothing = 0.1}); }},
    {"cross_entropy_none",
     [](const Args& x) { return cross_entropy(x[0], ignoring(), {.reduction = Reduction::none}); }},
    {"cross_entropy_dense", [](const Args& x) { return cross_entropy(x[0], x[1].detach(), {.label_smoothing = 0.1}); }},
    {"cross_entropy_2d", [](const Args& x) { return cross_entropy(x[0], x[1]); }},
    {"nll_loss", [](const Args& x) { return nll_loss(x[0], ignoring(), {.reduction = Reduction::sum}); }},
    {"mse_loss", [](const Args& x) { return mse_loss(x[0], x[1]); }},
    {"l1_loss", [](const Args& x) { return l1_loss(x[0], x[1]); }},
    {"smooth_l1_loss", [](const Args& x) { return smooth_l1_loss(x[0], x[1], Reduction::mean, 0.5); }},
    {"huber_loss", [](const Args& x) { return huber_loss(x[0], x[1], Reduction::mean, 0.7); }},
    {"bce", [](const Args& x) { return binary_cross_entropy(x[0], x[1].detach()); }},
    {"bce_logits",
     [](const Args& x) {
       return binary_cross_entropy_with_logits(x[0], x[1].detach(), {}, Reduction::mean, x[2].detach());
     }},
    {"kl_div", [](const Args& x) { return kl_div(x[0], x[1].detach(), KlReduction::batchmean, true); }},
};

const std::vector<Case> indexing_and_reductions = {
    {"embedding", [](const Args& x) { return embedding(x[0], x[1], 2); }},
    {"gather", [](const Args& x) { return gather(x[0], 1, x[1]); }},
    {"scatter_add", [](const Args& x) { return scatter_add(x[0], 1, x[1], x[2]); }},
    {"cumsum", [](const Args& x) { return cumsum(x[0], 1); }},
    {"cumprod", [](const Args& x) { return cumprod(x[0], 1); }},
    {"topk", [](const Args& x) { return topk(x[0], 2, 0).first; }},
    {"var",
     [](const Args& x) {
       return var(x[0], {0, 2});
     }},
    {"norm", [](const Args& x) { return norm(x[0], 3, {1}); }},
    {"amax_ties", [](const Args& x) { return amax(x[0], {1}); }},
    {"prod", [](const Args& x) { return prod(x[0]); }},
    {"pad",
     [](const Args& x) {
       return pad(x[0], {1, 2, 0, 1}, 0.5);
     }},
    {"repeat_interleave", [](const Args& x) { return repeat_interleave(x[0], 2, 1); }},
};

const std::vector<std::vector<Case>> all_cases = {linear_algebra, convolutions, normalisations, losses,
                                                  indexing_and_reductions};

void run(const Case& test, DType dtype) {
  const std::string name = test.first;
  const golden::Tensors& expected = golden::file("operators");
  const Args inputs = golden::leaves(expected, name + ".in", dtype, true);
  const Tensor y = test.second(inputs);
  golden::check_close(name, y, expected.at(name + ".out.0"));
  y.backward(expected.at(name + ".cotangent.0").to(dtype));
  for (const auto& [input, grad] : golden::below(expected, name + ".grad."))
    golden::check_close(name + " grad " + input, inputs[std::stoul(input)].grad(), grad);
}

}  // namespace

TEST_CASE("operators and their gradients are PyTorch's") {
  std::set<std::string> names;
  for (const auto& group : all_cases)
    for (const Case& test : group) {
      names.insert(test.first);
      CAPTURE(test.first);
      run(test, DType::f64);
      run(test, DType::f32);
    }
  CHECK(names == golden::cases(golden::file("operators")));
}
