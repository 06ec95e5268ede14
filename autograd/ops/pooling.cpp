#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops/convolution.h>
#include <loom/autograd/ops/derivatives.h>
#include <loom/autograd/ops/index.h>
#include <loom/autograd/ops/reduce.h>
#include <loom/autograd/ops/shape.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

void check_plane(const char* op, const Tensor& x) {
  check(x.dim() == 4 || x.dim() == 3, op, ": given x of shape ", x.shape(), ", expected [N, C, H, W] or [C, H, W]");
}

PoolGeometry geometry(const Pair& kernel, const PoolOptions& options) {
  const Pair stride = options.stride.value_or(kernel);
  return {{kernel.height, kernel.width},
          {stride.height, stride.width},
          {options.padding.height, options.padding.width},
          {options.dilation.height, options.dilation.width},
          options.count_include_pad};
}

// [N, C, H, W] with N * C planes in dim 0 and their elements in dim 1.
Dims flat_planes(const Dims& shape) { return {shape[0] * shape[1], shape[2] * shape[3]}; }

std::pair<Tensor, Tensor> pool_max(const Tensor& input, const PoolGeometry& g, bool ceil_mode) {
  const auto [x] = enter(ops::max_pool2d, input);
  const auto [y, index] = raw::max_pool2d(x, g, ceil_mode);
  const auto rule = [index = save(index), shape = x.shape(), g](const Tensor& dy) -> Grads {
    if (!context().grad_mode) return {raw::max_pool2d_grad(dy, index(), shape, g)};
    const Tensor zero = zeros(flat_planes(shape), {dy.dtype(), dy.device()});
    const Dims flat = flat_planes(dy.shape());
    return {reshape(scatter_add(zero, 1, reshape(index(), flat), reshape(dy, flat)), shape)};
  };
  return {record(ops::max_pool2d, y, {x}, rule), index};
}

std::pair<Tensor, Tensor> plane_maxima(const Tensor& x, Pair kernel, const PoolOptions& options) {
  check_plane("max_pool2d", x);
  const PoolGeometry g = geometry(kernel, options);
  if (x.dim() == 4) return pool_max(x, g, options.ceil_mode);
  const auto [y, index] = pool_max(unsqueeze(x, 0), g, options.ceil_mode);
  return {squeeze(y, 0), squeeze(index, 0)};
}

Tensor pool_average(const Tensor& input, const PoolGeometry& g, bool ceil_mode) {
  const auto [x] = enter(ops::avg_pool2d, input);
  return record(ops::avg_pool2d, raw::avg_pool2d(x, g, ceil_mode), {x},
                [shape = x.shape(), g](const Tensor& dy) -> Grads { return {avg_pool2d_grad(dy, shape, g)}; });
}

// Pooling over lines runs over planes of one row; what is wrong is said of the line.
PoolOptions line_options(const char* op, const Tensor& x, int64_t kernel, std::optional<int64_t> stride,
                         int64_t padding) {
  check(x.dim() == 3 || x.dim() == 2, op, ": given x of shape ", x.shape(), ", expected [N, C, L] or [C, L]");
  check(kernel >= 1, op, ": kernel must be positive, got ", kernel);
  check(stride.value_or(1) >= 1, op, ": stride must be positive, got ", *stride);
  check(padding >= 0 && padding <= kernel / 2, op, ": padding ", padding, " must be between 0 and half of the kernel ",
        kernel);
  check(x.size(-1) + 2 * padding >= kernel, op, ": the kernel reaches over ", kernel,
        " positions, more than the padded input's ", x.size(-1) + 2 * padding);
  return {.stride = Pair(1, stride.value_or(kernel)), .padding = {0, padding}};
}

// The mean of each of `count` windows along dim; they overlap where the extent does not divide.
Tensor window_means(const Tensor& x, int dim, int64_t count) {
  const int64_t extent = x.size(dim);
  std::vector<Tensor> means;
  for (int64_t i = 0; i < count; ++i)
    means.push_back(mean(slice(x, dim, i * extent / count, ((i + 1) * extent + count - 1) / count), {dim}, true));
  return cat(means, dim);
}

}  // namespace

Tensor avg_pool2d_grad(const Tensor& gradient, const Dims& input_shape, const PoolGeometry& g) {
  const auto [dy] = enter(ops::avg_pool2d_grad, gradient);
  // The geometry of the result is dy's: whether ceil_mode was on shows in its shape.
  const auto rule = [g, shape = dy.shape()](const Tensor& h) -> Grads {
    const Tensor floored = pool_average(h, g, false);
    return {floored.shape() == shape ? floored : pool_average(h, g, true)};
  };
  return record(ops::avg_pool2d_grad, raw::avg_pool2d_grad(dy, input_shape, g), {dy}, rule);
}

std::pair<Tensor, Tensor> max_pool2d_with_indices(const Tensor& x, Pair kernel, const PoolOptions& options) {
  return speaking_as("max_pool2d_with_indices", [&] { return plane_maxima(x, kernel, options); });
}

Tensor max_pool2d(const Tensor& x, Pair kernel, const PoolOptions& options) {
  return plane_maxima(x, kernel, options).first;
}

Tensor avg_pool2d(const Tensor& x, Pair kernel, const PoolOptions& options) {
  check_plane("avg_pool2d", x);
  check(options.dilation.height == 1 && options.dilation.width == 1, "avg_pool2d: given dilation ",
        options.dilation.height, " x ", options.dilation.width, ", expected 1: averages have none");
  const PoolGeometry g = geometry(kernel, options);
  if (x.dim() == 4) return pool_average(x, g, options.ceil_mode);
  return squeeze(pool_average(unsqueeze(x, 0), g, options.ceil_mode), 0);
}

Tensor max_pool1d(const Tensor& x, int64_t kernel, std::optional<int64_t> stride, int64_t padding) {
  return speaking_as("max_pool1d", [&] {
    const PoolOptions options = line_options("max_pool1d", x, kernel, stride, padding);
    return squeeze(max_pool2d(unsqueeze(x, -2), {1, kernel}, options), -2);
  });
}

Tensor avg_pool1d(const Tensor& x, int64_t kernel, std::optional<int64_t> stride, int64_t padding) {
  return speaking_as("avg_pool1d", [&] {
    const PoolOptions options = line_options("avg_pool1d", x, kernel, stride, padding);
    return squeeze(avg_pool2d(unsqueeze(x, -2), {1, kernel}, options), -2);
  });
}

Tensor adaptive_avg_pool2d(const Tensor& x, Pair output) {
  return speaking_as("adaptive_avg_pool2d", [&] {
    check_plane("adaptive_avg_pool2d", x);
    check(output.height >= 1 && output.width >= 1, "adaptive_avg_pool2d: given an output of ", output.height, " x ",
          output.width, ", expected at least 1 x 1");
    const int64_t height = x.size(-2), width = x.size(-1);
    if (height == 0 || width == 0)
      fail("adaptive_avg_pool2d: given x of shape ", x.shape(), ", expected planes that are not empty");
    if (height % output.height == 0 && width % output.width == 0)
      return avg_pool2d(x, {height / output.height, width / output.width});
    return window_means(window_means(x, x.dim() - 2, output.height), x.dim() - 1, output.width);
  });
}

}  // namespace loom
