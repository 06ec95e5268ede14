// Views: the same memory under another shape and strides, in constant time.
#include <algorithm>

#include <loom/tensor/raw/operand.h>

namespace loom::raw {

Tensor as_strided(const Tensor& x, const Dims& shape, const Dims& strides, int64_t offset) {
  check(shape.size() == strides.size(), "as_strided: shape ", shape, " and strides ", strides, " differ in length");
  int64_t first = offset, last = offset;
  for (int i = 0; i < shape.size(); ++i) {
    check(shape[i] >= 0, "as_strided: extent ", shape[i], " at dimension ", i, " is negative");
    (strides[i] < 0 ? first : last) += (shape[i] - 1) * strides[i];
  }
  const auto available = static_cast<int64_t>(x.storage()->bytes() / item_size(x.dtype()));
  check(shape.numel() == 0 || (first >= 0 && last < available), "as_strided: shape ", shape, " with strides ", strides,
        " and offset ", offset, " reaches outside the storage of ", available, " elements");
  return view_of(x, shape, strides, offset);
}

Tensor alias(const Tensor& x) {
  const Tensor::Body& from = x.body();
  auto body = make_ref<Tensor::Body>();
  body->storage = from.storage;
  body->shape = from.shape;
  body->strides = from.strides;
  body->offset = from.offset;
  body->dtype = from.dtype;
  body->wrapped_number = from.wrapped_number;
  return Tensor(std::move(body));
}

Dims infer_shape(std::string_view op, const Dims& shape, int64_t numel) {
  int unknown = -1;
  int64_t known = 1;
  for (int i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1) {
      check(unknown < 0, op, ": shape ", shape, " leaves more than one extent (-1) open");
      unknown = i;
    } else {
      check(shape[i] >= 0, op, ": extent ", shape[i], " at dimension ", i, " is negative");
      known *= shape[i];
    }
  }
  if (unknown < 0) {
    check(known == numel, op, ": shape ", shape, " has ", known, " elements, the tensor has ", numel);
    return shape;
  }
  check(known > 0 && numel % known == 0, op, ": no extent in place of -1 makes shape ", shape, " hold ", numel,
        " elements");
  Dims out = shape;
  out[unknown] = numel / known;
  return out;
}

namespace {

// Strides under which x's memory has `shape`; none where a copy is needed. Runs of dims that lie in memory as one dim
// may be cut up anew.
std::optional<Dims> strides_for(const Tensor& x, const Dims& shape) {
  if (x.numel() == 0 || x.is_contiguous()) return row_major_strides(shape);
  Dims strides = Dims::filled(shape.size(), 1);
  int to = shape.size() - 1;
  int64_t old_run = 1, new_run = 1, stride = x.strides().back();
  for (int from = x.dim() - 1; from >= 0; --from) {
    old_run *= x.shape()[from];
    const bool run_ends = from == 0 || (x.shape()[from - 1] != 1 && x.strides()[from - 1] != old_run * stride);
    if (!run_ends) continue;
    while (to >= 0 && (new_run < old_run || shape[to] == 1)) {
      strides[to] = new_run * stride;
      new_run *= shape[to--];
    }
    if (new_run != old_run) return {};
    if (from > 0) {
      stride = x.strides()[from - 1];
      old_run = new_run = 1;
    }
  }
  return to < 0 ? std::optional(strides) : std::nullopt;
}

}  // namespace

std::optional<Tensor> try_view(const Tensor& x, const Dims& shape) {
  check(shape.numel() == x.numel(), "view: shape ", shape, " has ", shape.numel(), " elements, the tensor has ",
        x.numel());
  const std::optional<Dims> strides = strides_for(x, shape);
  if (!strides) return {};
  return view_of(x, shape, *strides, x.storage_offset());
}

Tensor reshape(const Tensor& x, const Dims& shape) {
  const Dims full = infer_shape("reshape", shape, x.numel());
  if (auto view = try_view(x, full)) return *view;
  return view_of(clone(x), full, row_major_strides(full), 0);
}

Tensor permute(const Tensor& x, const Dims& dims) {
  check(dims.size() == x.dim(), "permute: ", dims, " does not name the ", x.dim(), " dimensions of shape ", x.shape());
  Dims shape, strides;
  bool seen[Dims::max_rank] = {};
  for (const int64_t d : dims) {
    const int from = normalize_dim("permute", static_cast<int>(d), x.dim());
    check(!seen[from], "permute: dimension ", from, " appears twice in ", dims);
    seen[from] = true;
    shape.push_back(x.shape()[from]);
    strides.push_back(x.strides()[from]);
  }
  return view_of(x, shape, strides, x.storage_offset());
}

Tensor transpose(const Tensor& x, int dim0, int dim1) {
  if (x.dim() == 0) {
    normalize_dim("transpose", dim0, 1);
    normalize_dim("transpose", dim1, 1);
    return alias(x);
  }
  const int a = normalize_dim("transpose", dim0, x.dim()), b = normalize_dim("transpose", dim1, x.dim());
  Dims shape = x.shape(), strides = x.strides();
  std::swap(shape[a], shape[b]);
  std::swap(strides[a], strides[b]);
  return view_of(x, shape, strides, x.storage_offset());
}

Tensor expand(const Tensor& x, const Dims& shape) {
  const int lead = shape.size() - x.dim();
  check(lead >= 0, "expand: shape ", shape, " has fewer dimensions than ", x.shape());
  Dims out = shape, strides = Dims::filled(shape.size(), 0);
  for (int i = 0; i < shape.size(); ++i) {
    const bool fresh = i < lead;
    check(shape[i] >= 0 || (shape[i] == -1 && !fresh), "expand: extent ", shape[i], " at dimension ", i,
          fresh ? " of a new dimension is negative" : " is negative");
    if (fresh) continue;
    const int64_t extent = x.shape()[i - lead];
    if (shape[i] == -1) out[i] = extent;
    check(out[i] == extent || extent == 1, "expand: shape ", x.shape(), " does not expand to ", shape, " (dimension ",
          i, ")");
    strides[i] = out[i] == extent ? x.strides()[i - lead] : 0;
  }
  return view_of(x, out, strides, x.storage_offset());
}

Tensor squeeze(const Tensor& x, int dim) {
  if (x.dim() == 0) {
    normalize_dim("squeeze", dim, 1);
    return alias(x);
  }
  const int d = normalize_dim("squeeze", dim, x.dim());
  if (x.shape()[d] != 1) return alias(x);
  Dims shape = x.shape(), strides = x.strides();
  shape.erase(d);
  strides.erase(d);
  return view_of(x, shape, strides, x.storage_offset());
}

Tensor unsqueeze(const Tensor& x, int dim) {
  const int d = normalize_dim("unsqueeze", dim, x.dim() + 1);
  Dims shape = x.shape(), strides = x.strides();
  const int64_t stride = d < x.dim() ? shape[d] * strides[d] : 1;
  shape.insert(d, 1);
  strides.insert(d, stride);
  return view_of(x, shape, strides, x.storage_offset());
}

Tensor slice(const Tensor& x, int dim, int64_t start, int64_t stop, int64_t step) {
  const int d = normalize_dim("slice", dim, x.dim());
  check(step >= 1, "slice: step must be positive, got ", step);
  check(0 <= start && start <= stop && stop <= x.shape()[d], "slice: ", start, ":", stop, " is not inside dimension ",
        d, " of size ", x.shape()[d]);
  Dims shape = x.shape(), strides = x.strides();
  const int64_t offset = x.storage_offset() + start * strides[d];
  shape[d] = (stop - start + step - 1) / step;
  strides[d] *= step;
  return view_of(x, shape, strides, offset);
}

Tensor select(const Tensor& x, int dim, int64_t index) {
  check(x.dim() > 0, "select: a 0-dimensional tensor has nothing to select from");
  const int d = normalize_dim("select", dim, x.dim());
  const int64_t size = x.shape()[d];
  check(index >= -size && index < size, "select: index ", index, " is out of range for dimension ", d, " of size ",
        size);
  Dims shape = x.shape(), strides = x.strides();
  const int64_t offset = x.storage_offset() + (index < 0 ? index + size : index) * strides[d];
  shape.erase(d);
  strides.erase(d);
  return view_of(x, shape, strides, offset);
}

Tensor diagonal(const Tensor& x, int64_t offset, int dim1, int dim2) {
  const int a = normalize_dim("diagonal", dim1, x.dim()), b = normalize_dim("diagonal", dim2, x.dim());
  check(a != b, "diagonal: both dimensions are ", a);
  const int64_t rows = x.shape()[a], columns = x.shape()[b];
  const int64_t length = offset >= 0 ? std::min(rows, columns - offset) : std::min(rows + offset, columns);
  const int64_t stride = x.strides()[a] + x.strides()[b];
  int64_t start = x.storage_offset();
  if (length > 0) start += offset >= 0 ? offset * x.strides()[b] : -offset * x.strides()[a];
  Dims shape = x.shape(), strides = x.strides();
  for (const int d : {std::max(a, b), std::min(a, b)}) {
    shape.erase(d);
    strides.erase(d);
  }
  shape.push_back(std::max<int64_t>(length, 0));
  strides.push_back(stride);
  return view_of(x, shape, strides, start);
}

}  // namespace loom::raw
