// Pooling over the planes of [N, C, H, W].
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

void check_geometry(const char* op, const PoolGeometry& g) {
  for (const size_t i : {0, 1}) {
    check(g.kernel[i] >= 1, op, ": kernel must be positive, got [", g.kernel[0], ", ", g.kernel[1], "]");
    check(g.stride[i] >= 1, op, ": stride must be positive, got [", g.stride[0], ", ", g.stride[1], "]");
    check(g.dilation[i] >= 1, op, ": dilation must be positive, got [", g.dilation[0], ", ", g.dilation[1], "]");
    const int64_t reach = g.dilation[i] * (g.kernel[i] - 1) + 1;
    check(g.padding[i] >= 0 && g.padding[i] <= reach / 2, op, ": padding ", g.padding[i],
          " must be between 0 and half of the kernel's reach ", reach);
  }
}

// torch's rule: with ceil_mode a last window may stick out, but starts inside the input or the padding before it.
int64_t output_size(const char* op, int64_t extent, const PoolGeometry& g, size_t i, bool ceil_mode) {
  const int64_t reach = g.dilation[i] * (g.kernel[i] - 1) + 1, stride = g.stride[i];
  const int64_t room = extent + 2 * g.padding[i] - reach + (ceil_mode ? stride - 1 : 0);
  check(room >= 0, op, ": the kernel reaches over ", reach, " positions, more than the padded input's ",
        extent + 2 * g.padding[i], " (", i == 0 ? "height" : "width", ")");
  const int64_t count = room / stride + 1;
  return ceil_mode && (count - 1) * stride >= extent + g.padding[i] ? count - 1 : count;
}

Dims pooled_shape(const char* op, const Dims& x, const PoolGeometry& g, bool ceil_mode) {
  check(x.size() == 4, op, ": expects an input [N, C, H, W], got shape ", x);
  check_geometry(op, g);
  return {x[0], x[1], output_size(op, x[2], g, 0, ceil_mode), output_size(op, x[3], g, 1, ceil_mode)};
}

}  // namespace

std::pair<Tensor, Tensor> max_pool2d(const Tensor& x, const PoolGeometry& g, bool ceil_mode) {
  const Dims shape = pooled_shape("max_pool2d", x.shape(), g, ceil_mode);
  check_floating("max_pool2d", x);
  Tensor y = uninitialized_like("max_pool2d", {&x}, shape, x.dtype());
  Tensor index = uninitialized_like("max_pool2d", {&x}, shape, DType::i64);
  if (y.numel() > 0) accelerator(x.device()).max_pool2d(y, index, x, g);
  return {y, index};
}

Tensor max_pool2d_grad(const Tensor& dy, const Tensor& index, const Dims& input_shape, const PoolGeometry& g) {
  check(dy.shape() == index.shape(), "max_pool2d_grad: dy must have shape ", index.shape(), ", got ", dy.shape());
  check_floating("max_pool2d_grad", dy);
  Tensor dx = uninitialized_like("max_pool2d_grad", {&dy, &index}, input_shape, dy.dtype());
  if (dx.numel() > 0) accelerator(dy.device()).max_pool2d_grad(dx, dy, index, g);
  return dx;
}

Tensor avg_pool2d(const Tensor& x, const PoolGeometry& g, bool ceil_mode) {
  const Dims shape = pooled_shape("avg_pool2d", x.shape(), g, ceil_mode);
  check_floating("avg_pool2d", x);
  Tensor y = uninitialized_like("avg_pool2d", {&x}, shape, x.dtype());
  if (y.numel() > 0) accelerator(x.device()).avg_pool2d(y, x, g);
  return y;
}

Tensor avg_pool2d_grad(const Tensor& dy, const Dims& input_shape, const PoolGeometry& g) {
  const Dims down = pooled_shape("avg_pool2d_grad", input_shape, g, false);
  const Dims up = pooled_shape("avg_pool2d_grad", input_shape, g, true);
  check(dy.shape() == down || dy.shape() == up, "avg_pool2d_grad: dy must have shape ", down, " (or ", up,
        " with ceil_mode), got ", dy.shape());
  check_floating("avg_pool2d_grad", dy);
  Tensor dx = uninitialized_like("avg_pool2d_grad", {&dy}, input_shape, dy.dtype());
  if (dx.numel() > 0) accelerator(dy.device()).avg_pool2d_grad(dx, dy, g);
  return dx;
}

}  // namespace loom::raw
