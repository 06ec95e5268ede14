// Reading and writing by lists of positions along one dimension.
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

// One zero, seen in every place: what adds to zeros or writes over them copies them first.
Tensor zeros_of(const Dims& shape, const Tensor& like) {
  return expand(zeros({}, {like.dtype(), like.device()}), shape);
}

// g, of the index's shape, as a gradient of the source, whose first positions were read.
Tensor grown(Tensor g, const Dims& shape) {
  if (g.shape() == shape) return g;
  std::vector<int64_t> amounts;
  for (int d = shape.size() - 1; d >= 0; --d) {
    amounts.push_back(0);
    amounts.push_back(shape[d] - g.size(d));
  }
  return pad(g, amounts);
}

Tensor scattered(const Op& op, Scatter mode, const Tensor& input, int dim, const Tensor& index, const Tensor& values) {
  const auto [x, source] = enter(op, input, values);
  const auto rule = [=, index = save(index), shape = source.shape()](const Tensor& g, const Needs& needs) {
    Grads grads(2);
    if (needs[0]) grads[0] = mode == Scatter::add ? g : scatter(g, dim, index(), zeros_of(index().shape(), g));
    if (needs[1]) grads[1] = grown(gather(g, dim, index()), shape);
    return grads;
  };
  return record(op, raw::scatter(mode, x, dim, index, source), {x, source}, rule);
}

}  // namespace

Tensor index_select(const Tensor& input, int dim, const Tensor& positions) {
  const auto [x] = enter(ops::index_select, input);
  const Tensor index = positions.dtype() == DType::i32 ? positions.to(DType::i64) : positions;
  const auto rule = [dim, index = save(index), shape = x.shape()](const Tensor& g) -> Grads {
    return {index_add(zeros_of(shape, g), dim, index(), g)};
  };
  return record(ops::index_select, raw::index_select(x, dim, index), {x}, rule);
}

Tensor index_add(const Tensor& input, int dim, const Tensor& index, const Tensor& values) {
  const auto [x, source] = enter(ops::index_add, input, values);
  const auto rule = [dim, index = save(index)](const Tensor& g, const Needs& needs) -> Grads {
    return {g, needs[1] ? index_select(g, dim, index()) : Tensor()};
  };
  return record(ops::index_add, raw::index_add(x, dim, index, source), {x, source}, rule);
}

Tensor gather(const Tensor& input, int dim, const Tensor& index) {
  const auto [x] = enter(ops::gather, input);
  const auto rule = [dim, index = save(index), shape = x.shape()](const Tensor& g) -> Grads {
    return {scatter_add(zeros_of(shape, g), dim, index(), g)};
  };
  return record(ops::gather, raw::gather(x, dim, index), {x}, rule);
}

Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  return scattered(ops::scatter, Scatter::assign, x, dim, index, source);
}

Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  return scattered(ops::scatter_add, Scatter::add, x, dim, index, source);
}

Tensor take_along_dim(const Tensor& x, const Tensor& index, int dim) {
  return speaking_as("take_along_dim", [&] {
    check(x.dim() == index.dim(), "take_along_dim: given x of shape ", x.shape(), " and index of shape ", index.shape(),
          ", expected equal ranks");
    const int d = normalize_dim("take_along_dim", dim, x.dim());
    for (int i = 0; i < x.dim(); ++i)
      check(i == d || x.size(i) == index.size(i) || x.size(i) == 1 || index.size(i) == 1,
            "take_along_dim: given x of shape ", x.shape(), " and index of shape ", index.shape(),
            ", expected extents that broadcast at dimension ", i);
    Dims of_x = x.shape(), of_index = index.shape();
    of_x[d] = of_index[d] = 1;
    Dims shape = broadcast_shapes("take_along_dim", of_x, of_index);
    shape[d] = x.size(d);
    const Tensor table = expand(x, shape);
    shape[d] = index.size(d);
    return gather(table, d, expand(index, shape));
  });
}

Tensor embedding(const Tensor& positions, const Tensor& table, int64_t padding_idx) {
  const auto [weight] = enter(ops::embedding, table);
  const Tensor index = positions.dtype() == DType::i32 ? positions.to(DType::i64) : positions;
  check(weight.dim() == 2, "embedding: given weight of shape ", weight.shape(), ", expected [n, d]");
  check(index.dtype() == DType::i64, "embedding: given an index of ", index.dtype(), ", expected i64 or i32");
  check(padding_idx < weight.size(0), "embedding: given padding_idx ", padding_idx, ", expected less than ",
        weight.size(0));
  const Tensor list = raw::reshape(index, {index.numel()});
  Dims shape = index.shape();
  shape.push_back(weight.size(1));
  const auto rule = [list = save(list), shape = weight.shape(), padding_idx](const Tensor& g) -> Grads {
    Tensor rows = reshape(g, {list().numel(), shape[1]});
    if (padding_idx >= 0) rows = masked_fill(rows, unsqueeze(list() == padding_idx, 1), 0.0);
    return {index_add(zeros_of(shape, g), 0, list(), rows)};
  };
  const Tensor rows = speaking_as("embedding", [&, weight = weight] { return raw::index_select(weight, 0, list); });
  return record(ops::embedding, raw::reshape(rows, shape), {weight}, rule);
}

Tensor one_hot(const Tensor& index, int64_t classes) {
  check(index.dtype() == DType::i64, "one_hot: given an index of ", index.dtype(), ", expected i64");
  check(classes >= 0 || index.numel() > 0, "one_hot: given an empty index, expected the number of classes with it");
  if (classes < 0) classes = raw::reduce(Reduce::max, index, {}, false).item<int64_t>() + 1;
  Dims shape = index.shape();
  shape.push_back(classes);
  const TensorOptions options(DType::i64, index.device());
  const Tensor position = raw::unsqueeze(index, -1), one = raw::expand(ones({}, options), position.shape());
  return speaking_as("one_hot",
                     [&] { return raw::scatter(Scatter::assign, zeros(shape, options), -1, position, one); });
}

Tensor nonzero(const Tensor& x) {
  const auto [condition] = enter(ops::nonzero, x);
  return raw::nonzero(condition);
}

Tensor masked_select(const Tensor& x, const Tensor& mask) {
  return speaking_as("masked_select", [&] {
    check(mask.dtype() == DType::boolean, "masked_select: given a mask of ", mask.dtype(), ", expected boolean");
    raw::check_same_device("masked_select", x, mask);
    const Dims shape = broadcast_shapes("masked_select", x.shape(), mask.shape());
    const Tensor positions = squeeze(nonzero(flatten(expand(mask, shape))), 1);
    return index_select(flatten(expand(x, shape)), 0, positions);
  });
}

}  // namespace loom
