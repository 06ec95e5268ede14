// New tensors: constant, from C++ memory, random. None of them records a gradient. What options leave open is the
// rank's default (context.h).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

DType default_dtype();
Device default_device();

Tensor empty(const Dims& shape, const TensorOptions& options = {});  // contents undefined
Tensor zeros(const Dims& shape, const TensorOptions& options = {});
Tensor ones(const Dims& shape, const TensorOptions& options = {});
Tensor full(const Dims& shape, double value, const TensorOptions& options = {});
Tensor eye(int64_t n, const TensorOptions& options = {});
// i64 when no dtype is given and all three are integers, as in PyTorch; stop is excluded.
Tensor arange(int64_t stop, const TensorOptions& options = {});
Tensor arange(int64_t start, int64_t stop, int64_t step = 1, const TensorOptions& options = {});
Tensor arange_real(double start, double stop, double step, const TensorOptions& options = {});
Tensor linspace(double start, double stop, int64_t steps, const TensorOptions& options = {});
// Same shape, dtype and device as x, unless options say otherwise.
Tensor empty_like(const Tensor& x, const TensorOptions& options = {});
Tensor zeros_like(const Tensor& x, const TensorOptions& options = {});
Tensor ones_like(const Tensor& x, const TensorOptions& options = {});
Tensor full_like(const Tensor& x, double value, const TensorOptions& options = {});

// Copies of C++ memory, row-major; the dtype is T's unless options say otherwise.
template <class T>
Tensor from_span(std::span<const T> values, const Dims& shape, const TensorOptions& options = {});
template <class T>
Tensor from_vector(const std::vector<T>& values, const Dims& shape, const TensorOptions& options = {}) {
  if constexpr (std::is_same_v<T, bool>) {
    const std::vector<uint8_t> bytes(values.begin(), values.end());
    return from_span(std::span<const uint8_t>(bytes), shape,
                     TensorOptions{options.dtype.value_or(DType::boolean), options.device.value_or(default_device())});
  } else {
    return from_span(std::span<const T>(values), shape, options);
  }
}
// Literals, as torch.tensor: floating ones get the default dtype (f32), integers i64.
template <class T>
TensorOptions literal_options(TensorOptions options) {
  if (!options.dtype && std::is_same_v<T, int>) options.dtype = DType::i64;
  if (!options.dtype && std::is_same_v<T, double>) options.dtype = default_dtype();
  return options;
}
template <class T>
Tensor tensor(std::initializer_list<T> values, const TensorOptions& options = {}) {
  return from_vector(std::vector<T>(values), Dims{static_cast<int64_t>(values.size())}, literal_options<T>(options));
}
template <class T>
Tensor tensor(std::initializer_list<std::initializer_list<T>> rows, const TensorOptions& options = {});
// Without copy: `data` must outlive the tensor, or `release` says when it may go.
Tensor from_blob(void* data, const Dims& shape, DType dtype, Device device = {}, std::function<void()> release = {});

// Random, from the rank's generator.
Tensor rand(const Dims& shape, const TensorOptions& options = {});                                // uniform in [0, 1)
Tensor randn(const Dims& shape, const TensorOptions& options = {});                               // normal(0, 1)
Tensor randint(int64_t low, int64_t high, const Dims& shape, const TensorOptions& options = {});  // [low, high), i64
Tensor randperm(int64_t n, const TensorOptions& options = {});                                    // i64
Tensor bernoulli(const Tensor& probability);                                                      // elementwise
Tensor rand_like(const Tensor& x);
Tensor randn_like(const Tensor& x);

template <class T>
Tensor tensor(std::initializer_list<std::initializer_list<T>> rows, const TensorOptions& options) {
  std::vector<T> values;
  for (const auto& row : rows) {
    check(row.size() == rows.begin()->size(), "tensor: rows of ", rows.begin()->size(), " and ", row.size(), " values");
    values.insert(values.end(), row.begin(), row.end());
  }
  const auto height = static_cast<int64_t>(rows.size());
  return from_vector(values, Dims{height, height ? static_cast<int64_t>(rows.begin()->size()) : 0},
                     literal_options<T>(options));
}

}  // namespace loom
