#include <loom/tensor/raw/operand.h>

namespace loom::raw {

Tensor uninitialized(std::string_view op, const Dims& shape, DType dtype, Device device) {
  auto bytes = static_cast<int64_t>(item_size(dtype));
  bool countable = true;
  for (int i = 0; i < shape.size(); ++i) {
    check(shape[i] >= 0, op, ": extent ", shape[i], " at dimension ", i, " is negative");
    // An extent of 0 hides no overflow: strides are computed without it.
    countable &= !__builtin_mul_overflow(bytes, shape[i] ? shape[i] : 1, &bytes);
  }
  check(countable, op, ": shape ", shape, " of ", dtype, " has more bytes than can be counted");
  auto body = make_ref<Tensor::Body>();
  body->storage = make_ref<Storage>(shape.numel() ? static_cast<size_t>(bytes) : 0, device);
  body->shape = shape;
  body->strides = row_major_strides(shape);
  body->dtype = dtype;
  return Tensor(std::move(body));
}

int64_t dense_count(const Tensor::Body& x) {
  int64_t count = 1;
  for (int i = x.shape.size() - 1; i >= 0; --i) {
    if (x.strides[i] != count) return 0;
    count *= x.shape[i];
  }
  return count;
}

Tensor uninitialized_as(const Tensor::Body& x, int64_t count) {
  auto storage = make_ref<Storage>(static_cast<size_t>(count) * item_size(x.dtype), x.storage->device());
  auto body = make_ref<Tensor::Body>();
  body->storage = std::move(storage);
  body->shape = x.shape;
  body->strides = x.strides;
  body->dtype = x.dtype;
  return Tensor(std::move(body));
}

Tensor uninitialized_image(std::string_view op, const Dims& shape, DType dtype, Device device) {
  Tensor y = uninitialized(op, shape, dtype, device);
  y.mutable_body().strides = {shape[1] * shape[2] * shape[3], 1, shape[3] * shape[1], shape[1]};
  return y;
}

bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4 || x.device().kind == Device::cpu || x.numel() == 0) return false;
  const Dims &shape = x.shape(), &strides = x.strides();
  const int64_t expected[] = {shape[1] * shape[2] * shape[3], 1, shape[3] * shape[1], shape[1]};
  for (int d = 0; d < 4; ++d)
    if (shape[d] != 1 && strides[d] != expected[d]) return false;
  return !x.is_contiguous();
}

Tensor uninitialized_like(std::string_view op, std::initializer_list<const Tensor*> like, const Dims& shape,
                          DType dtype) {
  const Device device = (*like.begin())->device();
  if (shape.size() == 4)
    for (const Tensor* const x : like)
      if (is_channels_last(*x)) return uninitialized_image(op, shape, dtype, device);
  return uninitialized(op, shape, dtype, device);
}

Tensor view_of(const Tensor& x, const Dims& shape, const Dims& strides, int64_t offset) {
  auto body = make_ref<Tensor::Body>();
  body->storage = x.storage();
  body->shape = shape;
  body->strides = strides;
  body->offset = offset;
  body->dtype = x.dtype();
  return Tensor(std::move(body));
}

View broadcast(const View& x, const Dims& shape) {
  if (x.shape == shape) return x;
  View out = x;
  out.shape = shape;
  out.strides = Dims::filled(shape.size(), 0);
  const int lead = shape.size() - x.rank();
  for (int i = 0; i < x.rank(); ++i) out.strides[i + lead] = x.shape[i] == 1 ? 0 : x.strides[i];
  return out;
}

View narrowed(View x, const Dims& shape) {
  x.shape = shape;
  return x;
}

Tensor at_least_1d(const Tensor& x) { return x.dim() > 0 ? x : view_of(x, {1}, {1}, x.storage_offset()); }

void check_same_device(std::string_view op, const Tensor& a, const Tensor& b) {
  check(a.device() == b.device(), op, ": tensors are on ", a.device(), " and ", b.device());
}

Device common_device(std::string_view op, const Tensor& a, const Tensor& b) {
  const Device on_a = a.device(), on_b = b.device();
  if (on_a == on_b) return on_a;
  if (a.dim() == 0 && on_a.kind == Device::cpu) return on_b;
  if (b.dim() == 0 && on_b.kind == Device::cpu) return on_a;
  fail(op, ": tensors are on ", on_a, " and ", on_b);
}

void check_same_dtype(std::string_view op, const Tensor& a, const Tensor& b) {
  check(a.dtype() == b.dtype(), op, ": dtypes ", a.dtype(), " and ", b.dtype(), " differ; convert one with .to(dtype)");
}

void check_floating(std::string_view op, const Tensor& x) {
  check(is_floating(x.dtype()), op, ": expects a floating dtype, got ", x.dtype());
}

void check_index(std::string_view op, const Tensor& index, const Tensor& x) {
  check(index.dtype() == DType::i64, op, ": index must be i64, got ", index.dtype());
  check_same_device(op, x, index);
}

void check_writable(std::string_view op, const Tensor& y) {
  for (int i = 0; i < y.dim(); ++i)
    check(y.shape()[i] <= 1 || y.strides()[i] != 0, op, ": the tensor is expanded (stride 0) at dimension ", i,
          ", so several elements share one place; clone it first");
}

void check_storable(std::string_view op, DType result, const Tensor& y) {
  const DType to = y.dtype();
  check(is_floating(to) || !is_floating(result), op, ": the result ", result, " cannot be stored in ", to);
  check(to != DType::boolean || result == DType::boolean, op, ": the result ", result, " cannot be stored in ", to);
}

namespace {

// First byte and the one past the last of the elements of x.
struct Extent {
  const std::byte* begin;
  const std::byte* end;
  explicit Extent(const View& x) : begin(x.as<std::byte>()), end(begin) {
    const auto item = static_cast<int64_t>(item_size(x.dtype));
    for (int i = 0; i < x.rank(); ++i) {
      const int64_t reach = (x.shape[i] - 1) * x.strides[i] * item;
      (reach < 0 ? begin : end) += reach;
    }
    end += item;
  }
};

template <class T>
T convert(int64_t value) {
  if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>)
    return T(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

template <class T>
T convert(double value) {
  if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>)
    return T(static_cast<float>(value));
  else
    return static_cast<T>(value);
}

int64_t integer_at(const View& x) {
  return with_type(x.dtype, [&]<class T> { return static_cast<int64_t>(*x.as<T>()); });
}

}  // namespace

double number_at(const View& x) {
  return with_type(x.dtype, [&]<class T> {
    if constexpr (sizeof(T) == 2)
      return static_cast<double>(static_cast<float>(*x.as<T>()));
    else
      return static_cast<double>(*x.as<T>());
  });
}

bool overlaps(const View& y, const View& x) {
  if (y.numel() == 0 || x.numel() == 0) return false;
  const Extent a(y), b(x);
  if (a.end <= b.begin || b.end <= a.begin) return false;
  return y.data != x.data || y.dtype != x.dtype || !(y.shape == x.shape) || !(y.strides == x.strides);
}

Operand::Operand(const Tensor& x, DType dtype, Device device) : view_(x) {
  if (x.dtype() == dtype && x.device() == device) return;
  if (x.dim() > 0 || view_.device.kind != Device::cpu) {
    converted_ = cast(x, dtype);
    view_ = converted_;
    return;
  }
  const bool integral = is_integral(x.dtype());
  const int64_t integer = integral ? integer_at(view_) : 0;
  const double real = integral ? 0 : number_at(view_);
  if (device.kind == Device::cpu) {
    with_type(dtype,
              [&]<class T> { *reinterpret_cast<T*>(number_) = integral ? convert<T>(integer) : convert<T>(real); });
    view_ = {number_, dtype, device, {}, {}};
  } else {
    converted_ = uninitialized("number", {}, dtype, device);
    view_ = converted_;
    if (integral)
      accelerator(device).fill(view_, integer);
    else
      accelerator(device).fill(view_, real);
  }
}

}  // namespace loom::raw
