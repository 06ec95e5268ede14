#include <loom/tensor/create.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/context.h>
#include <loom/tensor/raw/operand.h>

namespace loom {

namespace {

Tensor make(std::string_view op, const Dims& shape, const TensorOptions& options) {
  return raw::uninitialized(op, shape, options.dtype.value_or(default_dtype()),
                            options.device.value_or(default_device()));
}

TensorOptions like(const Tensor& x, const TensorOptions& options) {
  return {options.dtype.value_or(x.dtype()), options.device.value_or(x.device())};
}

TensorOptions with_default(TensorOptions options, DType dtype) {
  if (!options.dtype) options.dtype = dtype;
  return options;
}

Tensor filled(std::string_view op, const Dims& shape, double value, const TensorOptions& options) {
  Tensor y = make(op, shape, options);
  raw::fill(op, y, value);
  return y;
}

// How many values start, start + step, ... lie before stop.
int64_t steps_between(int64_t start, int64_t stop, int64_t step) {
  check(step != 0, "arange: step must not be 0");
  check(step > 0 ? stop >= start : stop <= start, "arange: step ", step, " leads from ", start, " away from ", stop);
  const auto distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                 : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : uint64_t{0} - static_cast<uint64_t>(step);
  return static_cast<int64_t>(distance / stride + (distance % stride != 0));
}

// Values computed on the host, in the dtype and on the device asked for.
template <class T>
Tensor from_host(const std::vector<T>& values, const TensorOptions& options) {
  return from_span(std::span<const T>(values), {static_cast<int64_t>(values.size())}, options);
}

// PyTorch's linspace: from both ends towards the middle, in T.
template <class T>
Tensor linspace_as(T start, T stop, int64_t steps, const TensorOptions& options) {
  std::vector<T> values(static_cast<size_t>(steps), start);
  const T step = steps > 1 ? (stop - start) / static_cast<T>(steps - 1) : T(0);
  for (int64_t i = 1; i < steps; ++i)
    values[static_cast<size_t>(i)] =
        i < steps / 2 ? start + step * static_cast<T>(i) : stop - step * static_cast<T>(steps - 1 - i);
  return from_host(values, options);
}

}  // namespace

DType default_dtype() { return context().default_dtype; }
Device default_device() { return context().default_device; }

Tensor empty(const Dims& shape, const TensorOptions& options) { return make("empty", shape, options); }
Tensor zeros(const Dims& shape, const TensorOptions& options) { return filled("zeros", shape, 0, options); }
Tensor ones(const Dims& shape, const TensorOptions& options) { return filled("ones", shape, 1, options); }
Tensor full(const Dims& shape, double value, const TensorOptions& options) {
  return filled("full", shape, value, options);
}

Tensor eye(int64_t n, const TensorOptions& options) {
  Tensor y = filled("eye", {n, n}, 0, options);
  if (n > 0) accelerator(y.device()).fill(raw::diagonal(y, 0, 0, 1), int64_t{1});
  return y;
}

Tensor arange(int64_t stop, const TensorOptions& options) { return arange(0, stop, 1, options); }

Tensor arange(int64_t start, int64_t stop, int64_t step, const TensorOptions& options) {
  const int64_t count = steps_between(start, stop, step);
  const TensorOptions chosen = with_default(options, DType::i64);
  constexpr int64_t exact = int64_t{1} << 53;  // the kernel counts in doubles
  if (std::min(start, stop) < -exact || std::max(start, stop) > exact) {
    std::vector<int64_t> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = start + i * step;
    return from_host(values, chosen);
  }
  Tensor y = make("arange", {count}, chosen);
  if (count > 0) accelerator(y.device()).arange(y, static_cast<double>(start), static_cast<double>(step));
  return y;
}

Tensor arange_real(double start, double stop, double step, const TensorOptions& options) {
  check(std::isfinite(start) && std::isfinite(stop) && std::isfinite(step), "arange: start ", start, ", stop ", stop,
        " and step ", step, " must be finite");
  check(step != 0, "arange: step must not be 0");
  check(step > 0 ? stop >= start : stop <= start, "arange: step ", step, " leads from ", start, " away from ", stop);
  const double count = std::ceil((stop - start) / step);
  check(count < 0x1p62, "arange: ", count, " values are too many");
  Tensor y = make("arange", {static_cast<int64_t>(count)}, options);
  if (is_integral(y.dtype())) {  // as PyTorch: the count from the real numbers, the values from their integer parts
    start = std::trunc(start);
    step = std::trunc(step);
  }
  if (y.numel() > 0) accelerator(y.device()).arange(y, start, step);
  return y;
}

Tensor linspace(double start, double stop, int64_t steps, const TensorOptions& options) {
  check(steps >= 0, "linspace: the number of steps ", steps, " is negative");
  const TensorOptions chosen = with_default(options, default_dtype());
  const bool single = is_floating(*chosen.dtype) && *chosen.dtype != DType::f64;
  return single ? linspace_as<float>(static_cast<float>(start), static_cast<float>(stop), steps, chosen)
                : linspace_as<double>(start, stop, steps, chosen);
}

Tensor empty_like(const Tensor& x, const TensorOptions& options) { return empty(x.shape(), like(x, options)); }
Tensor zeros_like(const Tensor& x, const TensorOptions& options) { return zeros(x.shape(), like(x, options)); }
Tensor ones_like(const Tensor& x, const TensorOptions& options) { return ones(x.shape(), like(x, options)); }
Tensor full_like(const Tensor& x, double value, const TensorOptions& options) {
  return full(x.shape(), value, like(x, options));
}

template <class T>
Tensor from_span(std::span<const T> values, const Dims& shape, const TensorOptions& options) {
  const Tensor host = raw::uninitialized("from_span", shape, dtype_of<T>(), Device());
  check(static_cast<int64_t>(values.size()) == shape.numel(), "from_span: ", values.size(),
        " values do not fill shape ", shape);
  if (!values.empty()) std::memcpy(host.data<T>(), values.data(), values.size_bytes());
  const DType dtype = options.dtype.value_or(dtype_of<T>());
  return raw::to_device(raw::cast(host, dtype), options.device.value_or(default_device()));
}

template Tensor from_span(std::span<const double>, const Dims&, const TensorOptions&);
template Tensor from_span(std::span<const float>, const Dims&, const TensorOptions&);
template Tensor from_span(std::span<const Half>, const Dims&, const TensorOptions&);
template Tensor from_span(std::span<const BFloat16>, const Dims&, const TensorOptions&);
template Tensor from_span(std::span<const int64_t>, const Dims&, const TensorOptions&);
template Tensor from_span(std::span<const int32_t>, const Dims&, const TensorOptions&);
template Tensor from_span(std::span<const uint8_t>, const Dims&, const TensorOptions&);
template Tensor from_span(std::span<const bool>, const Dims&, const TensorOptions&);

Tensor from_blob(void* data, const Dims& shape, DType dtype, Device device, std::function<void()> release) {
  for (int i = 0; i < shape.size(); ++i)
    check(shape[i] >= 0, "from_blob: extent ", shape[i], " at dimension ", i, " is negative");
  auto body = make_ref<Tensor::Body>();
  const size_t bytes = static_cast<size_t>(shape.numel()) * item_size(dtype);
  body->storage = make_ref<Storage>(data, bytes, device, std::move(release));
  body->shape = shape;
  body->strides = row_major_strides(shape);
  body->dtype = dtype;
  return Tensor(std::move(body));
}

}  // namespace loom
