// Ops that are derivatives of other ops. They are ops like any other, with derivatives of their own, so that rules made
// of them can be differentiated to any order.
#pragma once

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/tensor.h>

namespace loom {

// dy [N, O, H', W'], weight [O, C / groups, KH, KW] -> gradient of conv2d's x, of shape `input_shape`.
Tensor conv2d_grad_input(const Tensor& dy, const Tensor& weight, const Dims& input_shape, const ConvGeometry& geometry);
// The same of its weight, of shape `weight_shape`.
Tensor conv2d_grad_weight(const Tensor& dy, const Tensor& x, const Dims& weight_shape, const ConvGeometry& geometry);
// dy [N, C, H', W'] -> gradient of avg_pool2d's x, of shape `input_shape`.
Tensor avg_pool2d_grad(const Tensor& dy, const Dims& input_shape, const PoolGeometry& geometry);
// Gradients of softmax's and log_softmax's x from those of their results y.
Tensor softmax_grad(const Tensor& dy, const Tensor& y, int dim);
Tensor log_softmax_grad(const Tensor& dy, const Tensor& y, int dim);

}  // namespace loom
