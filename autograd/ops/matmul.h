// Products of matrices and vectors.
#pragma once

#include <string_view>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

Tensor matmul(const Tensor& a, const Tensor& b);  // torch.matmul: 1-d, 2-d and batched operands, batch dims broadcast
Tensor mm(const Tensor& a, const Tensor& b);      // 2-d only
Tensor bmm(const Tensor& a, const Tensor& b);     // 3-d only
Tensor addmm(const Tensor& c, const Tensor& a, const Tensor& b, double beta = 1, double alpha = 1);
Tensor dot(const Tensor& a, const Tensor& b);    // 1-d
Tensor outer(const Tensor& a, const Tensor& b);  // 1-d
// x [.., in] @ weight [out, in]^T + bias [out] (may be undefined).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});
// Sum of products by Einstein's notation: "bij,bjk->bik"; letters, one optional "...", no repeated letter in one
// operand.
Tensor einsum(std::string_view equation, const std::vector<Tensor>& operands);

}  // namespace loom
