// SPDX-License-Identifier: Apache-2.0
// Convolutions of f32 with a kernel of one element, without padding: products in which pixels are the lanes of vectors.
// They suit large planes, whose sums fill vectors, and gradients of strided ones, which are zero between the sums.
#pragma once

#include <loom/accelerators/cpu/conv.h>

namespace loom::cpu {

bool suits_pointwise_forward(const ConvShape& s);
void pointwise_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias);

bool suits_pointwise_grad_input(const ConvShape& s);
void pointwise_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w);

}  // namespace loom::cpu
