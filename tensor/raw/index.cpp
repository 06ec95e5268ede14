// Selecting, gathering and scattering by index; positions of what is not zero.
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

void check_list(const char* op, const Tensor& index, const Tensor& x) {
  check_index(op, index, x);
  check(index.dim() <= 1, op, ": index must have one dimension, got shape ", index.shape());
}

// torch.gather's rule: of every dimension but one, the index takes the first positions.
void check_covers(const char* op, const char* what, const Tensor& x, const Tensor& index, int free_dim) {
  check(x.dim() == index.dim(), op, ": index of shape ", index.shape(), " and ", what, " of shape ", x.shape(),
        " differ in rank");
  for (int d = 0; d < x.dim(); ++d)
    check(d == free_dim || index.shape()[d] <= x.shape()[d], op, ": index of shape ", index.shape(), " exceeds the ",
          what, " of shape ", x.shape(), " at dimension ", d);
}

}  // namespace

Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  check_list("index_select", index, x);
  const int d = normalize_dim("index_select", dim, x.dim());
  Dims shape = x.shape();
  shape[d] = index.numel();
  Tensor y = uninitialized("index_select", shape, x.dtype(), x.device());
  if (y.numel() > 0) accelerator(x.device()).index_select(y, x, at_least_1d(index), d);
  return y;
}

Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  check_list("index_add", index, x);
  check_same_device("index_add", x, source);
  check_same_dtype("index_add", x, source);
  const int d = normalize_dim("index_add", dim, x.dim());
  Dims expected = x.shape();
  expected[d] = index.numel();
  check(source.shape() == expected, "index_add: source must have shape ", expected, ", got ", source.shape());
  Tensor y = clone(x);
  if (source.numel() > 0) accelerator(x.device()).index_add(y, source, at_least_1d(index), d);
  return y;
}

Tensor gather(const Tensor& given, int dim, const Tensor& given_index) {
  check_index("gather", given_index, given);
  const Tensor x = at_least_1d(given), index = at_least_1d(given_index);
  const int d = normalize_dim("gather", dim, x.dim());
  Tensor y = uninitialized("gather", given_index.shape(), x.dtype(), x.device());
  if (y.numel() == 0) return y;
  check_covers("gather", "input", x, index, d);
  accelerator(x.device()).gather(at_least_1d(y), x, index, d);
  return y;
}

Tensor scatter(Scatter mode, const Tensor& x, int dim, const Tensor& given_index, const Tensor& given_source) {
  const char* op = mode == Scatter::add ? "scatter_add" : "scatter";
  check_index(op, given_index, x);
  check_same_device(op, x, given_source);
  check_same_dtype(op, x, given_source);
  Tensor y = clone(x);
  if (given_index.numel() == 0) return y;
  const Tensor table = at_least_1d(y), index = at_least_1d(given_index), source = at_least_1d(given_source);
  const int d = normalize_dim(op, dim, table.dim());
  check_covers(op, "input", table, index, d);
  check_covers(op, "source", source, index, -1);
  accelerator(x.device()).scatter(mode, table, narrowed(source, index.shape()), index, d);
  return y;
}

// How many there are is known only after looking, so this is done on the host.
Tensor nonzero(const Tensor& x) {
  const Tensor mask = contiguous(to_device(cast(x, DType::boolean), Device()));
  const std::span<const bool> set = mask.span<bool>();
  std::vector<int64_t> positions;
  for (size_t i = 0; i < set.size(); ++i) {
    if (!set[i]) continue;
    const size_t row = positions.size();
    positions.resize(row + static_cast<size_t>(x.dim()));
    auto rest = static_cast<int64_t>(i);
    for (int d = x.dim() - 1; d >= 0; --d) {
      positions[row + static_cast<size_t>(d)] = rest % x.shape()[d];
      rest /= x.shape()[d];
    }
  }
  const int64_t count = x.dim() > 0 ? static_cast<int64_t>(positions.size()) / x.dim() : int64_t{set[0]};
  return from_vector(positions, {count, x.dim()}, {DType::i64, x.device()});
}

}  // namespace loom::raw
