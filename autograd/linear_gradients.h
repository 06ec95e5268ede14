// What the rules of linear layers share.
#pragma once

#include <cstddef>
#include <utility>

#include <loom/tensor/tensor.h>

namespace loom::autograd {

// In a rule: rows^T [out, N] @ x [N, in], the gradient of its input of number `input`, into that one's .grad where it
// may go there directly.
Tensor weight_gradient(size_t input, const Tensor& rows, const Tensor& x);

// The same and the sums of rows, a bias's gradient, in one product where the device has that. Undefined: not wanted.
std::pair<Tensor, Tensor> affine_gradients(size_t weight, const Tensor& rows, const Tensor& x, bool wants_weight,
                                           bool wants_bias);

}  // namespace loom::autograd
