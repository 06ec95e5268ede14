#include <cmath>
#include <limits>

#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

void check_operands(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const char* const op = "scaled_dot_product_attention";
  for (const Tensor* const other : {&k, &v, &options.mask})
    if (other->defined()) raw::check_same_device(op, q, *other);
  const bool fits =
      q.dim() >= 2 && k.dim() >= 2 && v.dim() >= 2 && q.size(-1) == k.size(-1) && k.size(-2) == v.size(-2);
  check(fits, op, ": given q ", q.shape(), ", k ", k.shape(), ", v ", v.shape(),
        ", expected q [.., Tq, d], k [.., Tk, d], v [.., Tk, dv]");
  check(!options.mask.defined() || !options.is_causal, op,
        ": given a mask and is_causal, expected at most one of them");
  if (options.mask.defined())
    check(options.mask.dtype() == DType::boolean || is_floating(options.mask.dtype()), op, ": given a mask of ",
          options.mask.dtype(), ", expected boolean (true: attend) or floating (added to the scores)");
}

// Weights of rows that may attend to nothing are 0, not NaN.
Tensor attend(const Tensor& scores, const Tensor& allowed) {
  const Tensor hidden = logical_not(allowed);
  const Tensor weights = softmax(masked_fill(scores, hidden, -std::numeric_limits<double>::infinity()), -1);
  return masked_fill(weights, all(hidden, {-1}, true), 0.0);
}

}  // namespace

Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& options) {
  return speaking_as("scaled_dot_product_attention", [&] {
    check_operands(q, k, v, options);
    const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(q.size(-1))));
    const Tensor scores = matmul(q * scale, transpose(k, -2, -1));
    Tensor weights;
    if (options.is_causal) {
      const Tensor lower = tril(ones({q.size(-2), k.size(-2)}, {DType::boolean, q.device()}));
      weights = softmax(masked_fill(scores, logical_not(lower), -std::numeric_limits<double>::infinity()), -1);
    } else if (!options.mask.defined()) {
      weights = softmax(scores, -1);
    } else if (options.mask.dtype() == DType::boolean) {
      weights = attend(scores, options.mask);
    } else {
      weights = softmax(scores + options.mask.to(scores.dtype()), -1);
    }
    return matmul(dropout(weights, options.dropout), v);
  });
}

}  // namespace loom
