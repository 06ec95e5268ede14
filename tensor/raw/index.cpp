// Selecting, gathering and scattering by index.
#include <algorithm>
#include <cstring>

#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

void check_list(const char* op, const Tensor& index, const Tensor& x) {
  check_index(op, index, x);
  check(index.dim() <= 1, op, ": index must have one dimension, got shape ", index.shape());
  check(x.dim() > 0 || index.numel() == 1, op, ": a 0-dimensional tensor takes 1 index, got ", index.numel());
}

// torch.gather's rule: of every dimension but one, the index takes the first positions.
void check_covers(const char* op, const char* what, const Tensor& x, const Tensor& index, int free_dim) {
  check(x.dim() == index.dim(), op, ": index of shape ", index.shape(), " and ", what, " of shape ", x.shape(),
        " differ in rank");
  for (int d = 0; d < x.dim(); ++d)
    check(d == free_dim || index.shape()[d] <= x.shape()[d], op, ": index of shape ", index.shape(), " exceeds the ",
          what, " of shape ", x.shape(), " at dimension ", d);
}

void check_rows(const char* op, const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  check_list(op, index, x);
  check_same_device(op, x, source);
  check_same_dtype(op, x, source);
  const int d = normalize_dim(op, dim, std::max(1, x.dim()));
  Dims expected = x.shape();
  if (x.dim() > 0) expected[d] = index.numel();
  check(source.shape() == expected, op, ": source must have shape ", expected, ", got ", source.shape());
}

void add_rows(const Tensor& y, int dim, const Tensor& index, const Tensor& source) {
  const Tensor table = at_least_1d(y);
  const int d = normalize_dim("index_add", dim, table.dim());
  if (source.numel() > 0) accelerator(y.device()).index_add(table, at_least_1d(source), at_least_1d(index), d);
}

void check_scatter(const char* op, const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  check_index(op, index, x);
  check_same_device(op, x, source);
  check_same_dtype(op, x, source);
  if (index.numel() == 0) return;
  const Tensor table = at_least_1d(x), places = at_least_1d(index);
  const int d = normalize_dim(op, dim, table.dim());
  check_covers(op, "input", table, places, d);
  check_covers(op, "source", at_least_1d(source), places, -1);
}

void write_at(Scatter mode, const Tensor& y, int dim, const Tensor& given_index, const Tensor& given_source) {
  if (given_index.numel() == 0) return;
  const Tensor table = at_least_1d(y), index = at_least_1d(given_index), source = at_least_1d(given_source);
  accelerator(y.device())
      .scatter(mode, table, narrowed(source, index.shape()), index, normalize_dim("scatter", dim, table.dim()));
}

// x, or a copy where writing to y could change what is yet to be read of it.
Tensor apart_from(const Tensor& y, const Tensor& x) { return y.storage() == x.storage() ? clone(x) : x; }

}  // namespace

Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  check_list("index_select", index, x);
  const Tensor table = at_least_1d(x);
  const int d = normalize_dim("index_select", dim, table.dim());
  Dims shape = x.shape();
  if (x.dim() > 0) shape[d] = index.numel();
  Tensor y = uninitialized("index_select", shape, x.dtype(), x.device());
  if (y.numel() > 0) accelerator(x.device()).index_select(at_least_1d(y), table, at_least_1d(index), d);
  return y;
}

Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  check_rows("index_add", x, dim, index, source);
  Tensor y = clone(x);
  add_rows(y, dim, index, source);
  return y;
}

void index_add_into(const Tensor& y, int dim, const Tensor& index, const Tensor& source) {
  check_rows("index_add_", y, dim, index, source);
  check_writable("index_add_", y);
  add_rows(y, dim, apart_from(y, index), apart_from(y, source));
  y.storage()->bump_version();
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

Tensor scatter(Scatter mode, const Tensor& x, int dim, const Tensor& index, const Tensor& source) {
  check_scatter(mode == Scatter::add ? "scatter_add" : "scatter", x, dim, index, source);
  Tensor y = clone(x);
  write_at(mode, y, dim, index, source);
  return y;
}

void scatter_into(Scatter mode, const Tensor& y, int dim, const Tensor& index, const Tensor& source) {
  const char* const op = mode == Scatter::add ? "scatter_add_" : "scatter_";
  check_scatter(op, y, dim, index, source);
  check_writable(op, y);
  write_at(mode, y, dim, apart_from(y, index), apart_from(y, source));
  y.storage()->bump_version();
}

}  // namespace loom::raw
