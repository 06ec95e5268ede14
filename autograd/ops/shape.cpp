#include <loom/autograd/ops/shape.h>

#include <algorithm>

#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

// The rule of every view that only renames positions: give the gradient the input's shape back.
auto reshape_back(const Tensor& x) {
  return [shape = x.shape()](const Tensor& g) { return Grads(reshape(g, shape)); };
}

}  // namespace

Tensor reshape(const Tensor& x_, const Dims& shape) {
  const auto [x] = enter(ops::reshape, x_);
  return record(ops::reshape, raw::reshape(x, raw::infer_shape("reshape", shape, x.numel())), {x}, reshape_back(x));
}

Tensor flatten(const Tensor& x, int start_dim, int end_dim) {
  if (x.dim() == 0) return reshape(x, {1});
  const int start = normalize_dim("flatten", start_dim, x.dim()), end = normalize_dim("flatten", end_dim, x.dim());
  check(start <= end, "flatten: start dimension ", start_dim, " comes after end dimension ", end_dim);
  Dims shape;
  int64_t merged = 1;
  for (int d = 0; d < x.dim(); ++d) {
    if (d < start || d > end)
      shape.push_back(x.size(d));
    else
      merged *= x.size(d);
    if (d == end) shape.push_back(merged);
  }
  return reshape(x, shape);
}

Tensor unflatten(const Tensor& x, int dim, const Dims& sizes) {
  return speaking_as("unflatten", [&] {
    const int at = normalize_dim("unflatten", dim, x.dim());
    const Dims inner = raw::infer_shape("unflatten", sizes, x.size(at));
    Dims shape;
    for (int d = 0; d < x.dim(); ++d) {
      if (d != at)
        shape.push_back(x.size(d));
      else
        for (const int64_t n : inner) shape.push_back(n);
    }
    return reshape(x, shape);
  });
}

Tensor transpose(const Tensor& x_, int dim0, int dim1) {
  const auto [x] = enter(ops::transpose, x_);
  return record(ops::transpose, raw::transpose(x, dim0, dim1), {x},
                [dim0, dim1](const Tensor& g) { return Grads(transpose(g, dim0, dim1)); });
}

Tensor permute(const Tensor& x_, const Dims& dims) {
  const auto [x] = enter(ops::permute, x_);
  return record(ops::permute, raw::permute(x, dims), {x}, [dims](const Tensor& g) {
    Dims inverse = dims;
    for (int i = 0; i < dims.size(); ++i) inverse[static_cast<int>((dims[i] + dims.size()) % dims.size())] = i;
    return Grads(permute(g, inverse));
  });
}

Tensor movedim(const Tensor& x, int source, int destination) {
  return speaking_as("movedim", [&] {
    const int rank = std::max(1, x.dim());  // a 0-dimensional tensor counts as one of 1 dimension
    const int from = normalize_dim("movedim", source, rank), to = normalize_dim("movedim", destination, rank);
    if (x.dim() == 0) return permute(x, {});
    Dims order;
    for (int d = 0; d < x.dim(); ++d)
      if (d != from) order.push_back(d);
    order.insert(to, from);
    return permute(x, order);
  });
}

Tensor squeeze(const Tensor& x) {
  Dims shape;
  for (const int64_t n : x.shape())
    if (n != 1) shape.push_back(n);
  return reshape(x, shape);
}

Tensor squeeze(const Tensor& x_, int dim) {
  const auto [x] = enter(ops::squeeze, x_);
  return record(ops::squeeze, raw::squeeze(x, dim), {x}, reshape_back(x));
}

Tensor unsqueeze(const Tensor& x_, int dim) {
  const auto [x] = enter(ops::unsqueeze, x_);
  return record(ops::unsqueeze, raw::unsqueeze(x, dim), {x}, reshape_back(x));
}

Tensor expand(const Tensor& x_, const Dims& shape) {
  const auto [x] = enter(ops::expand, x_);
  return record(ops::expand, raw::expand(x, shape), {x},
                [](const Tensor& g) { return Grads(g); });  // summed on the edge
}

namespace {

// The gradient of a part of x: zeros of x's shape with g written into that part.
Tensor pad_to(const Tensor& g, int dim, int64_t before, int64_t after) {
  std::vector<int64_t> amounts(static_cast<size_t>(2 * (g.dim() - dim)), 0);
  amounts[amounts.size() - 2] = before;
  amounts[amounts.size() - 1] = after;
  return pad(g, amounts);
}

// Undoes a stride: g's elements at 0, step, 2 step, ... of `size` positions, zeros between.
Tensor spread(const Tensor& g, int dim, int64_t step, int64_t size) {
  if (step == 1) return g;
  const Tensor spaced = pad_to(unsqueeze(g, dim + 1), dim + 1, 0, step - 1);
  return narrow(flatten(spaced, dim, dim + 1), dim, 0, size);
}

}  // namespace

Tensor slice(const Tensor& x_, int dim, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step) {
  const auto [x] = enter(ops::slice, x_);
  const int at = normalize_dim("slice", dim, x.dim());
  check(step >= 1, "slice: the step must be at least 1, got ", step);
  const int64_t size = x.size(at);
  const auto clamp_to_size = [size](int64_t i) { return std::clamp(i < 0 ? i + size : i, int64_t{0}, size); };
  const int64_t from = clamp_to_size(start.value_or(0));
  const int64_t to = std::max(from, clamp_to_size(stop.value_or(size)));
  return record(ops::slice, raw::slice(x, at, from, to, step), {x}, [=](const Tensor& g) {
    const int64_t covered = g.size(at) == 0 ? 0 : (g.size(at) - 1) * step + 1;
    return Grads(pad_to(spread(g, at, step, covered), at, from, size - from - covered));
  });
}

Tensor narrow(const Tensor& x, int dim, int64_t start, int64_t length) {
  return speaking_as("narrow", [&] {
    const int at = normalize_dim("narrow", dim, x.dim());
    const int64_t from = start < 0 ? start + x.size(at) : start;
    check(from >= 0 && length >= 0 && from + length <= x.size(at), "narrow: start ", start, " with length ", length,
          " is out of range for dimension ", at, " of size ", x.size(at));
    return slice(x, at, from, from + length);
  });
}

Tensor select(const Tensor& x_, int dim, int64_t index) {
  const auto [x] = enter(ops::select, x_);
  check(x.dim() > 0, "select: a 0-dimensional tensor cannot be indexed");
  const int at = normalize_dim("select", dim, x.dim());
  const int64_t size = x.size(at), position = index < 0 ? index + size : index;
  check(position >= 0 && position < size, "select: index ", index, " is out of range for dimension ", at, " of size ",
        size);
  return record(ops::select, raw::select(x, at, position), {x},
                [=](const Tensor& g) { return Grads(pad_to(unsqueeze(g, at), at, position, size - position - 1)); });
}

Tensor diagonal(const Tensor& x_, int64_t offset, int dim1, int dim2) {
  const auto [x] = enter(ops::diagonal, x_);
  return record(ops::diagonal, raw::diagonal(x, offset, dim1, dim2), {x}, [=, shape = x.shape()](const Tensor& g) {
    // Positions of the diagonal in the flattened plane, written by scatter along the plane.
    const int d1 = normalize_dim("diagonal", dim1, shape.size()), d2 = normalize_dim("diagonal", dim2, shape.size());
    const int64_t rows = shape[d1], columns = shape[d2], n = g.size(-1);
    Dims batch;
    for (int d = 0; d < shape.size(); ++d)
      if (d != d1 && d != d2) batch.push_back(shape[d]);
    Dims plane = batch;
    plane.push_back(rows * columns);
    const int64_t first = offset >= 0 ? offset : -offset * columns;
    const Tensor index = arange(n, TensorOptions(DType::i64, g.device())) * (columns + 1) + first;
    Tensor full = index_add(zeros(plane, {g.dtype(), g.device()}), -1, index, g);
    Dims split = batch;
    split.push_back(rows);
    split.push_back(columns);
    full = reshape(full, split);  // [batch.., rows, columns]; now back to where d1 and d2 were
    Dims order;
    for (int d = 0, next = 0; d < shape.size(); ++d)
      order.push_back(d == d1 ? shape.size() - 2 : d == d2 ? shape.size() - 1 : next++);
    return Grads(permute(full, order));
  });
}

namespace {

// Gradients of the parts, zeros where none arrived, put together again: one node for all parts, so that the gradient of
// x is written once however many parts there are.
template <class Join>
Grads join_parts(std::span<const Tensor> grads, const std::vector<Dims>& shapes, const Join& join) {
  const Tensor& any = *std::find_if(grads.begin(), grads.end(), [](const Tensor& g) { return g.defined(); });
  std::vector<Tensor> parts;
  for (size_t i = 0; i < grads.size(); ++i)
    parts.push_back(grads[i].defined() ? grads[i] : zeros(shapes[i], {any.dtype(), any.device()}));
  return Grads(join(parts));
}

template <class Join>
void record_parts(const Op& op, const Tensor& x, const std::vector<Tensor>& parts, const Join& join) {
  if (!recording(x) || parts.empty()) return;
  std::vector<Dims> shapes;
  shapes.reserve(parts.size());
  for (const Tensor& part : parts) shapes.push_back(part.shape());
  record_outputs(op, parts, Inputs{x}, [shapes, join](std::span<const Tensor> grads, const Needs&) {
    return join_parts(grads, shapes, join);
  });
}

}  // namespace

std::vector<Tensor> split(const Tensor& x_, const std::vector<int64_t>& sizes, int dim) {
  const auto [x] = enter(ops::split, x_);
  const int at = normalize_dim("split", dim, x.dim());
  int64_t total = 0;
  for (const int64_t n : sizes) {
    check(n >= 0, "split: size ", n, " is negative");
    total += n;
  }
  check(total == x.size(at), "split: sizes add up to ", total, ", dimension ", at, " has size ", x.size(at));
  std::vector<Tensor> parts;
  int64_t start = 0;
  for (const int64_t n : sizes) {
    parts.push_back(raw::slice(x, at, start, start + n, 1));
    start += n;
  }
  record_parts(ops::split, x, parts, [at](const std::vector<Tensor>& grads) { return cat(grads, at); });
  return parts;
}

std::vector<Tensor> split(const Tensor& x, int64_t size, int dim) {
  return speaking_as("split", [&] {
    check(size > 0, "split: the size must be positive, got ", size);
    const int64_t total = x.size(dim);
    std::vector<int64_t> sizes;
    for (int64_t start = 0; start < total || start == 0; start += size) sizes.push_back(std::min(size, total - start));
    return split(x, sizes, dim);
  });
}

std::vector<Tensor> chunk(const Tensor& x, int64_t chunks, int dim) {
  return speaking_as("chunk", [&] {
    check(chunks > 0, "chunk: the number of chunks must be positive, got ", chunks);
    return split(x, std::max<int64_t>((x.size(dim) + chunks - 1) / chunks, 1), dim);
  });
}

std::vector<Tensor> unbind(const Tensor& x_, int dim) {
  const auto [x] = enter(ops::unbind, x_);
  check(x.dim() > 0, "unbind: a 0-dimensional tensor cannot be taken apart");
  const int at = normalize_dim("unbind", dim, x.dim());
  std::vector<Tensor> parts;
  for (int64_t i = 0; i < x.size(at); ++i) parts.push_back(raw::select(x, at, i));
  record_parts(ops::unbind, x, parts, [at](const std::vector<Tensor>& grads) { return stack(grads, at); });
  return parts;
}

}  // namespace loom
