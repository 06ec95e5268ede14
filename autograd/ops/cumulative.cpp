// Cumulative sums and products along a dim.
#include <loom/autograd/compose.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/elementwise.h>
#include <loom/autograd/ops/reduce.h>
#include <loom/autograd/ops/shape.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

Tensor cumsum(const Tensor& x_, int dim) {
  const auto [x] = enter(ops::cumsum, x_);
  return record(ops::cumsum, raw::cumulative(Cumulative::sum, x, dim), {x},
                [dim](const Tensor& g) { return Grads(g.dim() == 0 ? g : flip(cumsum(flip(g, {dim}), dim), {dim})); });
}

namespace {

Tensor reversed_cumsum(const Tensor& x, int dim) { return flip(cumsum(flip(x, {dim}), dim), {dim}); }

// d y_j / d x_i = product of x_k, k <= j, k != i: an n x n product of masks along dim, right also where x has zeros.
Tensor cumprod_grad_by_holes(const Tensor& g, const Tensor& x, int dim) {
  const int64_t n = x.size(dim);
  const Tensor last = movedim(x, dim, -1);                                          // [.., n]
  const Tensor hole = eye(n, {g.dtype(), g.device()});                              // row i leaves x_i out
  const Tensor others = cumprod(where(hole == 1.0, 1.0, unsqueeze(last, -2)), -1);  // [.., i, j]
  const Tensor from_i = triu(ones({n, n}, {g.dtype(), g.device()}));                // j >= i
  return movedim(sum(others * from_i * unsqueeze(movedim(g, dim, -1), -2), {-1}), -1, dim);
}

// In time proportional to x: before a line's first zero sum_j>=i g_j y_j / x_i, at it the same products without it,
// behind it nothing.
Tensor cumprod_grad_with_zeros(const Tensor& g, const Tensor& x, const Tensor& y, int dim) {
  const Tensor zero = x == 0.0, count = cumsum(zero, dim), first = logical_and(zero, count == int64_t{1});
  const Tensor filled = where(zero, 1.0, x);
  const Tensor before = reversed_cumsum(g * y, dim) / filled;
  const Tensor at = reversed_cumsum(g * cumprod(where(first, 1.0, x), dim), dim);
  return where(count == int64_t{0}, before, where(first, at, 0.0));
}

}  // namespace

Tensor cumprod(const Tensor& x_, int dim) {
  const auto [x] = enter(ops::cumprod, x_);
  if (recording(x) && is_half(x.dtype()))  // products of some of the factors are part of the rule
    return in_wide([&](const Tensor& w) { return cumprod(w, dim); }, x);
  return record(ops::cumprod, raw::cumulative(Cumulative::product, x, dim), {x},
                [dim, x = save(x)](const Tensor& g, const Tensor& y) {
                  if (x().dim() == 0 || x().numel() == 0) return Grads(g);
                  if (!any(x() == 0.0).item<bool>()) return Grads(reversed_cumsum(g * y, dim) / x());
                  if (context().grad_mode) return Grads(cumprod_grad_by_holes(g, x(), dim));  // to be differentiated
                  return Grads(cumprod_grad_with_zeros(g, x(), y, dim));
                });
}

}  // namespace loom
