// Reductions, scans and order. dims empty means all; negative dims count from the end.
#pragma once

#include <optional>
#include <utility>

#include <loom/tensor/tensor.h>

namespace loom {

Tensor sum(const Tensor& x, const Dims& dims = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const Dims& dims = {}, bool keepdim = false);
Tensor prod(const Tensor& x, const Dims& dims = {}, bool keepdim = false);
Tensor amax(const Tensor& x, const Dims& dims = {}, bool keepdim = false);  // ties share the gradient equally
Tensor amin(const Tensor& x, const Dims& dims = {}, bool keepdim = false);
Tensor max(const Tensor& x);
Tensor min(const Tensor& x);
std::pair<Tensor, Tensor> max(const Tensor& x, int dim, bool keepdim = false);  // values, index (i64) of the first
std::pair<Tensor, Tensor> min(const Tensor& x, int dim, bool keepdim = false);
Tensor argmax(const Tensor& x, std::optional<int> dim = {}, bool keepdim = false);
Tensor argmin(const Tensor& x, std::optional<int> dim = {}, bool keepdim = false);
// correction 1: the sample variance (divided by n - 1); 0: the biased one.
Tensor var(const Tensor& x, const Dims& dims = {}, double correction = 1, bool keepdim = false);
// Call it loom::std(x): after `using namespace loom`, std alone is the standard library's namespace.
Tensor std(const Tensor& x, const Dims& dims = {}, double correction = 1, bool keepdim = false);
// Vector norm: p of 1, 2, any positive number, or infinity.
Tensor norm(const Tensor& x, double p = 2, const Dims& dims = {}, bool keepdim = false);
Tensor logsumexp(const Tensor& x, const Dims& dims, bool keepdim = false);
Tensor all(const Tensor& x, const Dims& dims = {}, bool keepdim = false);
Tensor any(const Tensor& x, const Dims& dims = {}, bool keepdim = false);
Tensor cumsum(const Tensor& x, int dim);
Tensor cumprod(const Tensor& x, int dim);
std::pair<Tensor, Tensor> sort(const Tensor& x, int dim = -1, bool descending = false);  // stable; values, index
Tensor argsort(const Tensor& x, int dim = -1, bool descending = false);
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k, int dim = -1, bool largest = true);  // sorted

// Sums x down to `shape`, which must broadcast to x's: the transpose of expand.
Tensor sum_to(const Tensor& x, const Dims& shape);

// True when shapes and dtypes agree and |a - b| <= atol + rtol * |b| everywhere (NaN equals nothing).
bool allclose(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8);
// True when shape, dtype and every element agree (NaN equals nothing).
bool equal(const Tensor& a, const Tensor& b);

}  // namespace loom
