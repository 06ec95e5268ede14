// Text of a tensor as PyTorch prints it. What users call is to_string, in autograd, which knows the tensor's graph.
#pragma once

#include <string>

#include <loom/tensor/tensor.h>

namespace loom {

// gradient: what stands last within the parentheses ("requires_grad=True"); may be empty.
std::string to_text(const Tensor& tensor, const std::string& gradient);

}  // namespace loom
