#include <loom/tensor/tensor.h>

#include <cstring>

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw/operand.h>

namespace loom {

namespace {

// A 0-dimensional CPU tensor that holds `value` and yields to the dtype of the other operand.
template <class T>
Tensor number(T value) {
  auto body = make_ref<Tensor::Body>();
  body->storage = make_ref<Storage>(sizeof(T), Device());
  std::memcpy(body->storage->data(), &value, sizeof(T));
  body->dtype = dtype_of<T>();
  body->wrapped_number = true;
  return Tensor(std::move(body));
}

// The one element of x, as Number; brings it to the host first.
template <class Number>
Number only_element(const Tensor& x) {
  check(x.numel() == 1, "item: a tensor of shape ", x.shape(), " has ", x.numel(), " elements, expected one");
  check_may_wait("item", x.device());
  const Tensor host = x.device().kind == Device::cpu ? x : raw::to_device(x, Device());
  const View view = host;
  return with_type(view.dtype, [&]<class T> {
    const T value = *view.as<T>();
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>)
      return static_cast<Number>(static_cast<float>(value));
    else
      return static_cast<Number>(value);
  });
}

}  // namespace

void Tensor::destroy(const Body* body) noexcept { delete body; }

int64_t Tensor::size(int dim) const { return shape()[normalize_dim("size", dim, this->dim())]; }

bool Tensor::is_contiguous() const {
  int64_t expected = 1;
  for (int i = dim() - 1; i >= 0; --i) {
    if (shape()[i] == 0) return true;
    if (shape()[i] != 1 && strides()[i] != expected) return false;
    expected *= shape()[i];
  }
  return true;
}

Tensor::operator View() const {
  const Body& b = body();
  return {raw_data(), b.dtype, b.storage->device(), b.shape, b.strides};
}

void* Tensor::raw_data() const {
  const Body& b = body();
  auto* const start = static_cast<std::byte*>(b.storage->data());
  return start ? start + b.offset * static_cast<int64_t>(item_size(b.dtype)) : nullptr;  // null: no elements
}

void Tensor::check_type(DType given, const char* what) const {
  check(dtype() == given, what, ": the tensor is ", dtype(), ", not ", given);
}

void Tensor::check_host_dense() const {
  check(device().kind == Device::cpu, "span: the tensor is on ", device(), "; bring it to the cpu first");
  check(is_contiguous(), "span: the tensor of shape ", shape(), " and strides ", strides(),
        " is not contiguous; call contiguous() first");
}

int64_t Tensor::item_integer() const { return only_element<int64_t>(*this); }
double Tensor::item_number() const { return only_element<double>(*this); }

Tensor Tensor::wrap_number(double value) { return number(value); }
Tensor Tensor::wrap_number(int64_t value) { return number(value); }
Tensor Tensor::wrap_number(bool value) { return number(value); }

template <class T>
std::vector<T> Tensor::to_vector() const {
  check_may_wait("to_vector", device());
  const Tensor host = device().kind == Device::cpu ? *this : raw::to_device(*this, Device());
  const auto count = static_cast<size_t>(numel());
  if constexpr (std::is_same_v<T, bool>) {  // its vector packs bits: no memory to copy into
    std::unique_ptr<bool[]> values(new bool[count]);
    if (count > 0) accelerator(Device()).copy(view_over(values.get(), DType::boolean, shape()), host);
    return std::vector<T>(values.get(), values.get() + count);
  } else {
    std::vector<T> values(count);
    if (count > 0) accelerator(Device()).copy(view_over(values.data(), dtype_of<T>(), shape()), host);
    return values;
  }
}

template std::vector<double> Tensor::to_vector() const;
template std::vector<float> Tensor::to_vector() const;
template std::vector<Half> Tensor::to_vector() const;
template std::vector<BFloat16> Tensor::to_vector() const;
template std::vector<int64_t> Tensor::to_vector() const;
template std::vector<int32_t> Tensor::to_vector() const;
template std::vector<uint8_t> Tensor::to_vector() const;
template std::vector<bool> Tensor::to_vector() const;

void Tensor::set_data(const Tensor& other) const {
  const Body& from = other.body();
  Body& to = mutable_body();
  to.storage = from.storage;
  to.shape = from.shape;
  to.strides = from.strides;
  to.offset = from.offset;
  to.dtype = from.dtype;
  to.wrapped_number = false;
}

int normalize_dim(std::string_view op, int dim, int rank) {
  check(dim >= -rank && dim < rank, op, ": dimension ", dim, " is out of range for a tensor of rank ", rank);
  return dim < 0 ? dim + rank : dim;
}

Dims broadcast_shapes(std::string_view op, const Dims& a, const Dims& b) {
  if (a == b) return a;
  Dims out = a.size() >= b.size() ? a : b;
  const Dims& shorter = a.size() >= b.size() ? b : a;
  const int lead = out.size() - shorter.size();
  for (int i = 0; i < shorter.size(); ++i) {
    int64_t& extent = out[i + lead];
    if (extent == 1) extent = shorter[i];
    check(shorter[i] == extent || shorter[i] == 1, op, ": shapes ", a, " and ", b, " do not broadcast (dimension ",
          i + lead, ")");
  }
  return out;
}

Index::Index(const Tensor& positions_or_mask) : variant(std::make_shared<const Tensor>(positions_or_mask)) {}

}  // namespace loom
