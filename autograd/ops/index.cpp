// Indexing with positions, slices, new axes and tensors, as PyTorch's x[...].
//
// Positions, slices and new axes make a view. Tensors of positions are then broadcast together and select elements of
// the dimensions that they stand at; where these adjoin, the broadcast dimensions take their place, else they come
// first. (As in PyTorch, and unlike NumPy, plain positions do not count as tensors here.)
#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

int consumed(const Index& entry) {
  if (const auto* const tensor = std::get_if<std::shared_ptr<const Tensor>>(&entry))
    return (*tensor)->dtype() == DType::boolean ? (*tensor)->dim() : 1;
  return std::holds_alternative<int64_t>(entry) || std::holds_alternative<Slice>(entry) ? 1 : 0;
}

// 0 <= position < size for all; the look at the values waits for the device.
Tensor wrapped(const Tensor& positions, int64_t size, int axis) {
  if (positions.numel() == 0) return positions;
  const auto low = raw::reduce(Reduce::min, positions, {}, false).item<int64_t>();
  const auto high = raw::reduce(Reduce::max, positions, {}, false).item<int64_t>();
  check(low >= -size && high < size, "index: index ", high >= size ? high : low, " is out of range for dimension ",
        axis, " of size ", size);
  return low < 0 ? where(positions < int64_t{0}, positions + size, positions) : positions;
}

// Positions along the dims of the view, null where a dim is kept whole.
struct Plan {
  Tensor view;
  std::vector<Tensor> positions;
  int dim = 0;   // the next one that an entry speaks of
  int axis = 0;  // of the tensor indexed, for messages

  void take(int64_t position) {
    const int64_t size = view.size(dim);
    check(position >= -size && position < size, "index: index ", position, " is out of range for dimension ", axis++,
          " of size ", size);
    view = select(view, dim, position);
  }
  void take(const Slice& s) {
    view = slice(view, dim++, s.start, s.stop, s.step);
    positions.emplace_back();
    ++axis;
  }
  void take(const NewAxis&) {
    view = unsqueeze(view, dim++);
    positions.emplace_back();
  }
  void skip(int dims) {
    for (; dims > 0; --dims) take(Slice{});
  }
  void take(const Tensor& index) {
    if (index.dtype() == DType::boolean) return take_mask(index);
    check(index.dtype() == DType::i64 || index.dtype() == DType::i32, "index: given a tensor of ", index.dtype(),
          ", expected positions (i64) or a mask (boolean)");
    if (index.dim() == 0) return take(index.item<int64_t>());
    positions.push_back(wrapped(index.to(DType::i64), view.size(dim++), axis++));
  }
  void take_mask(const Tensor& mask);
};

void Plan::take_mask(const Tensor& given) {
  Tensor mask = given;
  if (mask.dim() == 0) {  // a new axis with one or no position
    view = unsqueeze(view, dim);
    mask = reshape(mask, {1});
    --axis;
  }
  for (int d = 0; d < mask.dim(); ++d)
    check(mask.size(d) == view.size(dim + d), "index: given a mask of shape ", mask.shape(), " at dimension ", axis,
          " of a tensor, expected extent ", view.size(dim + d), " at the mask's dimension ", d);
  const Tensor where_set = raw::nonzero(mask);
  for (int d = 0; d < mask.dim(); ++d) positions.push_back(raw::select(where_set, 1, d));
  dim += mask.dim();
  axis += mask.dim();
}

void check_devices(const char* op, const Tensor& x, const std::vector<Index>& indices) {
  for (const Index& entry : indices)
    if (const auto* const tensor = std::get_if<std::shared_ptr<const Tensor>>(&entry))
      raw::check_same_device(op, x, **tensor);
}

// Values with dimensions keep what they are: fractions do not vanish in integers, nor numbers in true and false.
void check_values(const char* op, const Tensor& x, const Tensor& values) {
  if (values.dim() == 0) return;
  raw::check_same_device(op, x, values);
  const DType from = values.dtype(), to = x.dtype();
  check((is_floating(to) || !is_floating(from)) && (to != DType::boolean || from == to), op, ": values of ", from,
        " cannot be stored in ", to, "; convert them with .to(dtype)");
}

Plan plan(const Tensor& x, const std::vector<Index>& indices) {
  int used = 0, ellipses = 0;
  check_devices("index", x, indices);
  for (const Index& entry : indices) {
    used += consumed(entry);
    ellipses += std::holds_alternative<Ellipsis>(entry) ? 1 : 0;
  }
  check(used <= x.dim(), "index: given indices for ", used, " dimensions, expected at most ", x.dim(),
        " (the tensor has ", "shape ", x.shape(), ")");
  check(ellipses <= 1, "index: given ", ellipses, " ellipses, expected at most one");
  Plan p{x, {}};
  for (const Index& entry : indices) {
    if (std::holds_alternative<Ellipsis>(entry))
      p.skip(x.dim() - used);
    else if (const auto* const tensor = std::get_if<std::shared_ptr<const Tensor>>(&entry))
      p.take(**tensor);
    else if (const auto* const position = std::get_if<int64_t>(&entry))
      p.take(*position);
    else if (const auto* const range = std::get_if<Slice>(&entry))
      p.take(*range);
    else
      p.take(NewAxis{});
  }
  p.skip(p.view.dim() - p.dim);
  return p;
}

// The dims that tensors index, together as one, which `linear` counts through in row-major order.
struct Merged {
  Tensor view;  // with the indexed dims at `first` and next to each other
  Tensor linear;
  int first = 0, count = 0;
};

Merged merge(const Plan& p) {
  Merged m;
  Dims shape, indexed, rest;
  bool adjoin = true;
  for (int d = 0; d < p.view.dim(); ++d) {
    const Tensor& at = p.positions[static_cast<size_t>(d)];
    if (!at.defined()) {
      rest.push_back(d);
      continue;
    }
    adjoin = adjoin && (indexed.empty() || indexed.back() == d - 1);
    shape = indexed.empty() ? at.shape() : broadcast_shapes("index", shape, at.shape());
    indexed.push_back(d);
  }
  m.count = indexed.size();
  m.first = adjoin ? static_cast<int>(indexed[0]) : 0;
  m.linear = zeros({}, {DType::i64, p.view.device()});
  for (const int64_t d : indexed) {
    const int dim = static_cast<int>(d);
    m.linear = m.linear * p.view.size(dim) + p.positions[static_cast<size_t>(dim)];
  }
  m.linear = expand(m.linear, shape);
  Dims order = indexed;
  for (const int64_t d : rest) order.push_back(d);
  m.view = adjoin ? p.view : permute(p.view, order);
  return m;
}

// x's elements at the indices: positions `list` of dimension `dim` of `table`, which is a view of x where x's strides
// allow one; or, without a list, `table` itself.
struct Places {
  Tensor table, list;
  int dim = 0;
  Dims shape;  // of the elements
};

Places places(const Tensor& x, const std::vector<Index>& indices) {
  const Plan p = plan(x, indices);
  bool any = false;
  for (const Tensor& at : p.positions) any = any || at.defined();
  if (!any) return {p.view, {}, 0, p.view.shape()};
  const Merged m = merge(p);
  Dims flat, shape;
  int64_t extent = 1;
  for (int d = 0; d < m.view.dim(); ++d) {
    const bool indexed = d >= m.first && d < m.first + m.count;
    if (indexed) extent *= m.view.size(d);
    if (d == m.first + m.count - 1) flat.push_back(extent);
    if (d == m.first)
      for (const int64_t n : m.linear.shape()) shape.push_back(n);
    if (indexed) continue;
    flat.push_back(m.view.size(d));
    shape.push_back(m.view.size(d));
  }
  const Tensor table = m.count == 1 ? m.view : reshape(m.view, flat);
  return {table, reshape(m.linear, {m.linear.numel()}), m.first, shape};
}

// Writes or adds `source`, of the places' shape, to their table.
void write_places(const Places& p, const Tensor& source, bool accumulate) {
  if (!p.list.defined())
    return accumulate ? raw::binary_into(Binary::add, p.table, source) : raw::copy_into(p.table, source);
  Dims rows = p.table.shape(), along = Dims::filled(p.table.dim(), 1);
  rows[p.dim] = along[p.dim] = p.list.numel();
  const Tensor values = raw::reshape(source, rows);
  if (accumulate) return raw::index_add_into(p.table, p.dim, p.list, values);
  raw::scatter_into(Scatter::assign, p.table, p.dim, raw::expand(raw::reshape(p.list, along), rows), values);
}

}  // namespace

Tensor index(const Tensor& x, const std::vector<Index>& indices) {
  const Places p = places(x, indices);
  return p.list.defined() ? reshape(index_select(p.table, p.dim, p.list), p.shape) : p.table;
}

// The same indices, applied to the numbers of x's elements, say where the values go.
Tensor index_put(const Tensor& x_, const std::vector<Index>& indices, const Tensor& values_, bool accumulate) {
  check_devices("index_put", x_, indices);
  check_values("index_put", x_, values_);
  return compose(ops::index_put, std::tie(x_, values_), [&](const Tensor& x, const Tensor& values) {
    const Tensor numbers = reshape(arange(x.numel(), {DType::i64, x.device()}), x.shape());
    const Tensor at = index(numbers, indices);
    const Tensor source = reshape(expand(values.to(x.dtype()), at.shape()), {at.numel()});
    const Tensor flat = reshape(x, {x.numel()}), list = reshape(at, {at.numel()});
    return reshape(accumulate ? index_add(flat, 0, list, source) : scatter(flat, 0, list, source), x.shape());
  });
}

void index_put_into(const Tensor& x, const std::vector<Index>& indices, const Tensor& values, bool accumulate) {
  speaking_as("index_put_", [&] {
    const NoGrad off;
    const Tensor mine = x.detach();
    const Places p = places(mine, indices);
    check_values("index_put_", x, values);
    const Tensor given = values.to(x.dtype());
    const Tensor source = expand(values.storage() == x.storage() ? clone(given) : given, p.shape);
    if (p.table.storage() == x.storage()) return write_places(p, source, accumulate);
    // The indexed dims of this layout cannot be counted through as one: by way of the whole.
    raw::copy_into(x, index_put(mine, indices, source, accumulate));
  });
}

}  // namespace loom
