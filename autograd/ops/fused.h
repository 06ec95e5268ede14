// Several ops in one, where a device has a kernel for them together (accelerators/fused.h); elsewhere one after the
// other. Results differ from theirs by rounding alone.
#pragma once

#include <optional>
#include <utility>

#include <loom/tensor/tensor.h>

namespace loom {

// linear(gelu_tanh(linear(x, weight1, bias1)), weight2, bias2): x [.., in], weight1 [hidden, in], bias1 [hidden],
// weight2 [out, hidden], bias2 [out]; biases may be undefined.
Tensor gelu_mlp(const Tensor& x, const Tensor& weight1, const Tensor& bias1, const Tensor& weight2,
                const Tensor& bias2);

// {x + branch, layer_norm(x + branch)}: where a branch joins a residual stream. Equal shapes; else as layer_norm.
std::pair<Tensor, Tensor> add_layer_norm(const Tensor& x, const Tensor& branch, const Dims& shape,
                                         const Tensor& weight = {}, const Tensor& bias = {}, double eps = 1e-5);
// The same with rms_norm.
std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& branch, const Dims& shape,
                                       const Tensor& weight = {}, std::optional<double> eps = {});

// relu(batch_norm(x) + added); added of x's shape, or undefined. Else as batch_norm.
Tensor batch_norm_relu(const Tensor& x, const Tensor& added, const Tensor& running_mean, const Tensor& running_var,
                       const Tensor& weight = {}, const Tensor& bias = {}, bool training = false, double momentum = 0.1,
                       double eps = 1e-5);

}  // namespace loom
