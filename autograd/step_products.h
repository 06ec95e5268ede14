// What the steps of recurrent layers multiply, laid out for the CPU's caches.
#pragma once

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom::autograd {

// [.., size] for rows that products will read: on the CPU they lie two lines further apart where they would evict one
// another from its first cache.
inline Tensor rows_apart(Dims shape, const Tensor& like) {
  const auto item = static_cast<int64_t>(item_size(like.dtype()));
  const int64_t size = shape.back();
  const TensorOptions options(like.dtype(), like.device());
  if (like.device().kind != Device::cpu || size * item % 2048 != 0) return empty(shape, options);
  shape.back() += 128 / item;
  return raw::slice(empty(shape, options), shape.size() - 1, 0, size, 1);
}

// The products of every step's rows by the same weights [K, M]. On the CPU they would arrange the weights at every
// step, or read them by short runs: they are cut into panels of columns once. Very few rows are multiplied with the
// weights as they lie.
class StepProducts {
 public:
  StepProducts(const Tensor& weights, int64_t steps, int64_t rows)
      : on_(accelerator(weights.device())), weights_(weights) {
    cut_ = weights.device().kind == Device::cpu && steps > 1 && rows > 3 && weights.size(1) % width == 0;
    if (!cut_) return;
    const Dims panels{weights.size(0), weights.size(1) / width, width};
    weights_ = raw::contiguous(raw::transpose(raw::reshape(weights, panels), 0, 1));
  }
  // result = rows @ weights + added (of result's shape, or null data), or result += it.
  void operator()(const View& result, const View& rows, const View& added, bool adds = false) const {
    on_.gemm({.c = panels(result),
              .a = panels(rows, false),
              .b = weights_,
              .bias = panels(added),
              .beta = adds ? 1.0 : 0.0});
  }

 private:
  static constexpr int64_t width = 32;  // columns that a tile takes, or a few tiles

  Accelerator& on_;
  Tensor weights_;
  bool cut_;

  // A panel's columns of x [N, M], or all of them for each panel.
  View panels(View x, bool columns = true) const {
    if (!cut_ || x.data == nullptr) return x;
    x.shape.insert(0, weights_.size(0));
    x.strides.insert(0, columns ? width : 0);
    if (columns) x.shape.back() = width;
    return x;
  }
};

}  // namespace loom::autograd
