// Reductions, their indices, running sums and sorting.
#include <loom/tensor/context.h>
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

const char* name_of(Reduce op) {
  constexpr const char* names[] = {"sum", "mean", "prod", "max", "min", "all", "any", "sum_of_squares", "logsumexp"};
  return names[static_cast<size_t>(op)];
}

// Which dims of a tensor of this rank go away.
struct ReducedDims {
  bool reduced[Dims::max_rank] = {};

  ReducedDims(const char* op, const Dims& dims, int rank) {
    for (int i = 0; i < rank; ++i) reduced[i] = dims.empty();
    for (const int64_t given : dims) {
      const int d = normalize_dim(op, static_cast<int>(given), rank > 0 ? rank : 1);
      check(!reduced[d], op, ": dimension ", d, " appears twice in ", dims);
      reduced[d] = true;
    }
  }
  // With extents of 1 in place of the reduced ones, or without them.
  Dims shape(const Dims& from, bool keepdim) const {
    Dims out;
    for (int i = 0; i < from.size(); ++i)
      if (!reduced[i] || keepdim) out.push_back(reduced[i] ? 1 : from[i]);
    return out;
  }
};

// What the reduction is computed as: booleans have no extrema but any and all, and only sums know integers.
struct ReducePlan {
  Reduce op;
  DType input, result;
};

ReducePlan plan(Reduce op, DType x) {
  switch (op) {
    case Reduce::all:
    case Reduce::any:
      return {op, x, DType::boolean};
    case Reduce::sum:
    case Reduce::prod:
      return {op, x, is_integral(x) ? DType::i64 : x};
    case Reduce::max:
    case Reduce::min:
      if (x == DType::boolean) return {op == Reduce::max ? Reduce::any : Reduce::all, x, x};
      return {op, x, x};
    case Reduce::mean:
      check(is_floating(x), "mean: expects a floating dtype, got ", x);
      return {op, x, x};
    case Reduce::sum_of_squares:
    case Reduce::logsumexp: {
      const DType dtype = is_floating(x) ? x : context().default_dtype;
      return {op, dtype, dtype};
    }
  }
  __builtin_unreachable();
}

void reduce_into(const ReducePlan& plan, const Tensor& y, const Dims& kept_shape, const Tensor& x) {
  View out = y;
  out.shape = kept_shape;
  out.strides = row_major_strides(kept_shape);
  if (out.numel() > 0) accelerator(x.device()).reduce(plan.op, out, cast(x, plan.input));
}

}  // namespace

Tensor reduce(Reduce op, const Tensor& x, const Dims& dims, bool keepdim) {
  const ReducePlan plan = raw::plan(op, x.dtype());
  const ReducedDims which(name_of(op), dims, x.dim());
  if (op == Reduce::max || op == Reduce::min)
    for (int i = 0; i < x.dim(); ++i)
      check(!which.reduced[i] || x.shape()[i] > 0, name_of(op), ": dimension ", i, " of shape ", x.shape(),
            " is empty and has no ", name_of(op));
  Tensor y = uninitialized(name_of(op), which.shape(x.shape(), keepdim), plan.result, x.device());
  reduce_into(plan, y, which.shape(x.shape(), true), x);
  return y;
}

Tensor sum_to(const Tensor& x, const Dims& shape) {
  if (x.shape() == shape) return x;
  const int lead = x.dim() - shape.size();
  check(lead >= 0 && broadcast_shapes("sum_to", shape, x.shape()) == x.shape(), "sum_to: shape ", shape,
        " does not broadcast to ", x.shape());
  Dims kept = Dims::filled(x.dim(), 1);
  for (int i = 0; i < shape.size(); ++i) kept[i + lead] = shape[i];
  const ReducePlan plan = raw::plan(Reduce::sum, x.dtype());
  Tensor y = uninitialized("sum_to", shape, plan.result, x.device());
  reduce_into(plan, y, kept, x);
  return y;
}

std::pair<Tensor, Tensor> arg_reduce(ArgReduce op, const Tensor& given, int dim, bool keepdim) {
  const char* name = op == ArgReduce::max ? "argmax" : "argmin";
  const Tensor x = at_least_1d(given.dtype() == DType::boolean ? cast(given, DType::u8) : given);
  const int d = normalize_dim(name, dim, x.dim());
  check(x.shape()[d] > 0, name, ": dimension ", d, " of shape ", x.shape(), " is empty");
  Dims shape = x.shape();
  shape[d] = 1;
  Tensor values = uninitialized(name, shape, x.dtype(), x.device());
  Tensor index = uninitialized(name, shape, DType::i64, x.device());
  if (values.numel() > 0) accelerator(x.device()).arg_reduce(op, values, index, x, d);
  if (!keepdim || given.dim() == 0) {
    values = squeeze(values, d);
    index = squeeze(index, d);
  }
  return {cast(values, given.dtype()), index};
}

Tensor cumulative(Cumulative op, const Tensor& x, int dim) {
  const char* name = op == Cumulative::sum ? "cumsum" : "cumprod";
  const int d = normalize_dim(name, dim, x.dim() > 0 ? x.dim() : 1);
  const Tensor input = at_least_1d(cast(x, is_integral(x.dtype()) ? DType::i64 : x.dtype()));
  Tensor y = uninitialized(name, x.shape(), input.dtype(), x.device());
  if (y.numel() > 0) accelerator(x.device()).cumulative(op, at_least_1d(y), input, d);
  return y;
}

std::pair<Tensor, Tensor> sort(std::string_view op, const Tensor& given, int dim, bool descending, int64_t k) {
  const Tensor x = at_least_1d(given.dtype() == DType::boolean ? cast(given, DType::u8) : given);
  const int d = normalize_dim(op, dim, x.dim());
  const int64_t size = x.shape()[d];
  check(k >= 0 && k <= size, op, ": k ", k, " is out of range for dimension ", d, " of size ", size);
  Dims shape = given.shape();
  if (given.dim() > 0) shape[d] = k;
  Tensor values = uninitialized(op, shape, x.dtype(), x.device());
  Tensor index = uninitialized(op, shape, DType::i64, x.device());
  if (values.numel() > 0) accelerator(x.device()).sort(at_least_1d(values), at_least_1d(index), x, d, descending);
  return {cast(values, given.dtype()), index};
}

}  // namespace loom::raw
