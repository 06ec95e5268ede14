#include <loom/autograd/ops/reduce.h>

#include <cmath>

#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

// x's shape with extents of 1 where it was reduced: what y and g must have to broadcast against x.
Dims kept_shape(std::string_view op, const Tensor& x, const Dims& dims) {
  if (dims.empty()) return Dims::filled(x.dim(), 1);
  Dims shape = x.shape();
  for (const int64_t d : dims)
    if (x.dim() > 0) shape[normalize_dim(op, static_cast<int>(d), x.dim())] = 1;
  return shape;
}

// g as a broadcast of x's shape.
Tensor spread_over(const Tensor& g, const Dims& kept, const Dims& shape) { return expand(reshape(g, kept), shape); }

int64_t reduced_count(const Dims& shape, const Dims& kept) {
  int64_t n = 1;
  for (int d = 0; d < shape.size(); ++d)
    if (kept[d] == 1) n *= shape[d];
  return n;
}

}  // namespace

Tensor sum(const Tensor& x_, const Dims& dims, bool keepdim) {
  const auto [x] = enter(ops::sum, x_);
  return record(ops::sum, raw::reduce(Reduce::sum, x, dims, keepdim), {x},
                [kept = kept_shape("sum", x, dims), shape = x.shape()](const Tensor& g) {
                  return Grads(spread_over(g, kept, shape));
                });
}

Tensor mean(const Tensor& x_, const Dims& dims, bool keepdim) {
  const auto [x] = enter(ops::mean, x_);
  return record(ops::mean, raw::reduce(Reduce::mean, x, dims, keepdim), {x},
                [kept = kept_shape("mean", x, dims), shape = x.shape()](const Tensor& g) {
                  const double scale = 1.0 / static_cast<double>(reduced_count(shape, kept));
                  return Grads(spread_over(g * scale, kept, shape));
                });
}

Tensor sum_to(const Tensor& x_, const Dims& shape) {
  const auto [x] = enter(ops::sum_to, x_);
  return record(ops::sum_to, raw::sum_to(x, shape), {x}, [from = x.shape()](const Tensor& g) {
    Tensor spread = g;
    while (spread.dim() < from.size()) spread = unsqueeze(spread, 0);
    return Grads(expand(spread, from));
  });
}

namespace {

// d prod / d x_i = product of the others, here by leaving each out (cumulative products from both ends), which is exact
// and differentiable again, also where the product is 0.
Tensor prod_of_others(const Tensor& x, int dim) {
  const int64_t n = x.size(dim);
  const Tensor ones_edge = ones_like(narrow(x, dim, 0, 1));
  const Tensor before = n == 1 ? ones_edge : cat({ones_edge, cumprod(narrow(x, dim, 0, n - 1), dim)}, dim);
  const Tensor reversed = flip(x, {dim});
  const Tensor after =
      n == 1 ? ones_edge : flip(cat({ones_edge, cumprod(narrow(reversed, dim, 0, n - 1), dim)}, dim), {dim});
  return before * after;
}

}  // namespace

Tensor prod(const Tensor& x_, const Dims& dims, bool keepdim) {
  const auto [x] = enter(ops::prod, x_);
  if (recording(x) && is_half(x.dtype()))  // products of some of the factors are part of the rule
    return in_wide([&](const Tensor& w) { return prod(w, dims, keepdim); }, x);
  if (recording(x) && (dims.size() > 1 || (dims.empty() && x.dim() != 1))) {
    // Several dims: one after the other, so that the rule below needs to know only one.
    if (dims.empty() && !keepdim) return prod(flatten(x), {0});
    Tensor y = x;
    for (int d = 0; d < x.dim(); ++d)
      if (kept_shape("prod", x, dims)[d] == 1) y = prod(y, {d}, true);
    return keepdim ? y : reshape(y, raw::reduce(Reduce::prod, x, dims, false).shape());
  }
  const int dim = dims.empty() ? 0 : static_cast<int>(dims[0]);
  return record(ops::prod, raw::reduce(Reduce::prod, x, dims, keepdim), {x},
                [=, x = save(x), kept = kept_shape("prod", x, dims)](const Tensor& g, const Tensor& y) {
                  if (x().numel() == 0) return Grads(zeros_like(x()));
                  const Tensor whole = logical_and(isfinite(y), y != 0.0);
                  if (all(whole).item<bool>()) return Grads(reshape(g * y, kept) / x());
                  return Grads(reshape(g, kept) * prod_of_others(x(), dim));
                });
}

namespace {

Tensor extremum(const Op& op, Reduce kind, const Tensor& x_, const Dims& dims, bool keepdim) {
  const auto [x] = enter(op, x_);
  return record(op, raw::reduce(kind, x, dims, keepdim), {x},
                [x = save(x), kept = kept_shape(op.name, x, dims), dims](const Tensor& g, const Tensor& y) {
                  const Tensor hits = (x() == reshape(y.detach(), kept)).to(g.dtype());
                  return Grads(hits * (reshape(g, kept) / sum(hits, dims, true)));
                });
}

std::pair<Tensor, Tensor> extremum_along(const Op& op, ArgReduce kind, const Tensor& x_, int dim, bool keepdim) {
  const auto [x] = enter(op, x_);
  auto [values, index] = raw::arg_reduce(kind, x, dim, keepdim);
  const int at = x.dim() == 0 ? 0 : normalize_dim(op.name, dim, x.dim());
  Tensor y = record(op, std::move(values), {x}, [=, index = save(index), shape = x.shape()](const Tensor& g) {
    if (shape.empty()) return Grads(g);
    const bool lost = g.dim() < shape.size();
    return Grads(scatter_add(zeros(shape, {g.dtype(), g.device()}), at, lost ? unsqueeze(index(), at) : index(),
                             lost ? unsqueeze(g, at) : g));
  });
  return {std::move(y), index};
}

Tensor position_of(ArgReduce kind, const Tensor& x, std::optional<int> dim, bool keepdim) {
  if (dim) return raw::arg_reduce(kind, x, *dim, keepdim).second;
  const Tensor flat = raw::reshape(x, {x.numel()});
  const Tensor index = raw::arg_reduce(kind, flat, 0, false).second;
  return keepdim ? raw::reshape(index, Dims::filled(x.dim(), 1)) : index;
}

}  // namespace

Tensor amax(const Tensor& x, const Dims& dims, bool keepdim) {
  return speaking_as("amax", [&] { return extremum(ops::amax, Reduce::max, x, dims, keepdim); });
}
Tensor amin(const Tensor& x, const Dims& dims, bool keepdim) {
  return speaking_as("amin", [&] { return extremum(ops::amin, Reduce::min, x, dims, keepdim); });
}
Tensor max(const Tensor& x) { return extremum(ops::max, Reduce::max, x, {}, false); }
Tensor min(const Tensor& x) { return extremum(ops::min, Reduce::min, x, {}, false); }
std::pair<Tensor, Tensor> max(const Tensor& x, int dim, bool keepdim) {
  return speaking_as("max", [&] { return extremum_along(ops::max, ArgReduce::max, x, dim, keepdim); });
}
std::pair<Tensor, Tensor> min(const Tensor& x, int dim, bool keepdim) {
  return speaking_as("min", [&] { return extremum_along(ops::min, ArgReduce::min, x, dim, keepdim); });
}
Tensor argmax(const Tensor& x, std::optional<int> dim, bool keepdim) {
  return position_of(ArgReduce::max, resolve(x), dim, keepdim);
}
Tensor argmin(const Tensor& x, std::optional<int> dim, bool keepdim) {
  return position_of(ArgReduce::min, resolve(x), dim, keepdim);
}

namespace {

// x less its mean; twice, as the first mean is rounded: to more than the deviations are where it is large. Beside an
// infinite x there is nothing to round.
Tensor deviations(const Tensor& x, const Dims& dims) {
  const Tensor d = x - mean(x, dims, true), rest = mean(d, dims, true);
  return d - where(isfinite(rest), rest, 0.0);
}

}  // namespace

Tensor var(const Tensor& x_, const Dims& dims, double correction, bool keepdim) {
  return compose_wide(ops::var, std::tie(x_), [&](const Tensor& x) {
    const Dims kept = kept_shape("var", x, dims);
    const double n = static_cast<double>(reduced_count(x.shape(), kept));
    Tensor y;
    {
      const GradMode off(false);
      y = raw::reduce(Reduce::sum_of_squares, deviations(x, dims), dims, keepdim) / std::max(0.0, n - correction);
    }
    return record(ops::var, std::move(y), {x}, [=, x = save(x)](const Tensor& g) {
      return Grads(reshape(g, kept) * (2.0 / std::max(0.0, n - correction)) * deviations(x(), dims));
    });
  });
}

Tensor std(const Tensor& given, const Dims& dims, double correction, bool keepdim) {
  const auto root = [&](const Tensor& x) {
    const Tensor variance = var(x, dims, correction, keepdim);
    if (!recording(variance)) return sqrt(variance);
    const Tensor flat = variance == 0.0;  // PyTorch's gradient there is 0; sqrt's is infinite
    return masked_fill(sqrt(masked_fill(variance, flat, 1.0)), flat, 0.0);
  };
  return speaking_as("std", [&] { return in_wide(root, given); });
}

namespace {

Tensor p_norm(const Tensor& x, double p, const Dims& dims, bool keepdim) {
  if (p == 1) return sum(abs(x), dims, keepdim);
  if (p == 2) return sqrt(raw::reduce(Reduce::sum_of_squares, x, dims, keepdim));
  if (p == 0) return sum((x != 0.0).to(x.dtype()), dims, keepdim);
  if (std::isinf(p)) return amax(abs(x), dims, keepdim);
  return loom::pow_scalar(sum(loom::pow_scalar(abs(x), p), dims, keepdim), 1 / p);
}

// 1 / how many have the largest magnitude, where they stand; NaN counts as one of them.
Tensor share_of_largest(const Tensor& x, const Tensor& largest, const Dims& dims) {
  const Tensor found = logical_or(abs(x) == largest, isnan(x)).to(x.dtype());
  return found / sum(found, dims, true);
}

}  // namespace

Tensor norm(const Tensor& x_, double p, const Dims& dims, bool keepdim) {
  return compose_wide(ops::norm, std::tie(x_), [&](const Tensor& x) {
    check(p >= 0, "norm: the order must not be negative, got ", p);
    Tensor y;
    {
      const GradMode off(false);
      y = p_norm(x, p, dims, keepdim);
    }
    return record(ops::norm, std::move(y), {x},
                  [=, x = save(x), kept = kept_shape("norm", x, dims)](const Tensor& g, const Tensor& y) {
                    const Tensor total = reshape(y, kept), scale = reshape(g, kept);
                    if (p == 0) return Grads(zeros_like(x()));
                    if (p == 1) return Grads(scale * sign(x()));
                    if (std::isinf(p)) return Grads(scale * sign(x()) * share_of_largest(x(), total, dims));
                    // g * sign(x) |x|^(p-1) / y^(p-1); 0 where the norm is 0, as PyTorch's subgradient, or an element
                    const Tensor size = p < 1 ? where(x() == 0.0, 1.0, abs(x())) : abs(x());
                    const Tensor ratio = p == 2 ? x() / total : sign(x()) * loom::pow_scalar(size / total, p - 1);
                    return Grads(where(total == 0.0, 0.0, scale * ratio));
                  });
  });
}

Tensor logsumexp(const Tensor& x_, const Dims& dims, bool keepdim) {
  const auto [x] = enter(ops::logsumexp, x_);
  if (recording(x) && is_half(x.dtype()))  // exp(x - y) takes y as it is, not rounded
    return in_wide([&](const Tensor& w) { return logsumexp(w, dims, keepdim); }, x);
  return record(ops::logsumexp, raw::reduce(Reduce::logsumexp, x, dims, keepdim), {x},
                [x = save(x), kept = kept_shape("logsumexp", x, dims)](const Tensor& g, const Tensor& y) {
                  return Grads(reshape(g, kept) * exp(x() - reshape(y, kept)));
                });
}

Tensor all(const Tensor& x, const Dims& dims, bool keepdim) {
  return raw::reduce(Reduce::all, resolve(x), dims, keepdim);
}
Tensor any(const Tensor& x, const Dims& dims, bool keepdim) {
  return raw::reduce(Reduce::any, resolve(x), dims, keepdim);
}

namespace {

std::pair<Tensor, Tensor> ordered(const Op& op, const Tensor& x_, int dim, bool descending, int64_t k) {
  const auto [x] = enter(op, x_);
  auto [values, index] = raw::sort(op.name, x, dim, descending, k);
  Tensor y = record(op, std::move(values), {x}, [dim, index = save(index), shape = x.shape()](const Tensor& g) {
    if (shape.empty()) return Grads(g);
    return Grads(scatter_add(zeros(shape, {g.dtype(), g.device()}), dim, index(), g));
  });
  return {std::move(y), index};
}

}  // namespace

std::pair<Tensor, Tensor> sort(const Tensor& x, int dim, bool descending) {
  return speaking_as("sort", [&] { return ordered(ops::sort, x, dim, descending, x.dim() == 0 ? 1 : x.size(dim)); });
}
Tensor argsort(const Tensor& x, int dim, bool descending) {
  return speaking_as("argsort", [&] {
    return raw::sort("argsort", resolve(x), dim, descending, x.dim() == 0 ? 1 : x.size(dim)).second;
  });
}
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k, int dim, bool largest) {
  return ordered(ops::topk, x, dim, largest, k);
}

bool allclose(const Tensor& a, const Tensor& b, double rtol, double atol) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const NoGrad off;
  const Tensor x = a.to(DType::f64), y = b.to(DType::f64);
  const Tensor close = logical_or(x == y, logical_and(abs(x - y) <= abs(y) * rtol + atol, isfinite(y)));
  return all(close).item<bool>();
}

bool equal(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  return all(raw::binary(Binary::eq, a, b)).item<bool>();
}

}  // namespace loom
