// New arrangements of elements: joined, reversed, cut to a triangle.
#include <algorithm>

#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

// PyTorch lets tensors of shape [0] join anything.
bool is_void(const Tensor& x) { return x.dim() == 1 && x.shape()[0] == 0; }

// The shape that the parts join to along dim.
Dims joined_shape(const std::vector<Tensor>& parts, const Tensor& first, int d) {
  Dims shape = first.shape();
  shape[d] = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Tensor& part = parts[i];
    check_same_device("cat", first, part);
    if (is_void(part)) continue;
    check(part.dim() == first.dim(), "cat: tensor ", i, " of shape ", part.shape(), " differs in rank from ",
          first.shape());
    for (int k = 0; k < shape.size(); ++k)
      check(k == d || part.shape()[k] == shape[k], "cat: tensor ", i, " of shape ", part.shape(), " differs from ",
            first.shape(), " at dimension ", k, ", outside of dimension ", d, " to join along");
    shape[d] += part.shape()[d];
  }
  return shape;
}

}  // namespace

Tensor cat(const std::vector<Tensor>& tensors, int dim) {
  check(!tensors.empty(), "cat: needs at least one tensor");
  DType dtype = tensors[0].dtype();
  for (size_t i = 0; i < tensors.size(); ++i) {
    check(tensors[i].dim() > 0, "cat: tensor ", i, " is 0-dimensional; stack joins those");
    dtype = promote(dtype, tensors[i].dtype());
  }
  const auto solid = std::find_if_not(tensors.begin(), tensors.end(), is_void);
  const Tensor& first = solid == tensors.end() ? tensors[0] : *solid;
  const int d = normalize_dim("cat", dim, first.dim());
  Tensor y = uninitialized("cat", joined_shape(tensors, first, d), dtype, first.device());
  int64_t start = 0;
  for (const Tensor& part : tensors) {
    if (is_void(part)) continue;
    const int64_t stop = start + part.shape()[d];
    if (part.numel() > 0) accelerator(y.device()).copy(slice(y, d, start, stop, 1), part);
    start = stop;
  }
  return y;
}

Tensor flip(const Tensor& x, const Dims& dims) {
  Dims strides = x.strides();
  int64_t offset = x.storage_offset();
  bool seen[Dims::max_rank] = {};
  for (const int64_t given : dims) {
    const int d = normalize_dim("flip", static_cast<int>(given), x.dim());
    check(!seen[d], "flip: dimension ", d, " appears twice in ", dims);
    seen[d] = true;
    if (x.numel() > 0) offset += (x.shape()[d] - 1) * strides[d];
    strides[d] = -strides[d];
  }
  return clone(view_of(x, x.shape(), strides, offset));
}

Tensor triangle(const Tensor& x, int64_t diagonal, bool upper) {
  check(x.dim() >= 2, upper ? "triu" : "tril", ": expects at least 2 dimensions, got shape ", x.shape());
  const TensorOptions options(DType::i64, x.device());
  const Tensor rows = unsqueeze(arange(diagonal, diagonal + x.shape()[x.dim() - 2], 1, options), 1);
  const Tensor columns = arange(x.shape().back(), options);
  const Tensor kept = binary(upper ? Binary::ge : Binary::le, columns, rows);
  return where(kept, x, zeros({}, {x.dtype(), x.device()}));
}

}  // namespace loom::raw
