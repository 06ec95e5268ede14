// Convolutions over [N, C, H, W].
#include <loom/accelerators/fused.h>
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

std::string pair_text(const std::array<int64_t, 2>& p) { return str("[", p[0], ", ", p[1], "]"); }

void check_geometry(std::string_view op, const ConvGeometry& g) {
  for (const size_t i : {0, 1}) {
    check(g.stride[i] >= 1, op, ": stride must be positive, got ", pair_text(g.stride));
    check(g.dilation[i] >= 1, op, ": dilation must be positive, got ", pair_text(g.dilation));
    check(g.padding[i] >= 0, op, ": padding must not be negative, got ", pair_text(g.padding));
  }
  check(g.groups >= 1, op, ": groups must be positive, got ", g.groups);
}

void check_same(const char* op, const Tensor& a, const Tensor& b) {
  check_same_device(op, a, b);
  check_same_dtype(op, a, b);
  check_floating(op, a);
}

// An output without elements, or a sum over none.
bool is_trivial(const Tensor& y, const Tensor& a, const Tensor& b) {
  if (y.numel() == 0) return true;
  if (a.numel() > 0 && b.numel() > 0) return false;
  accelerator(y.device()).fill(y, int64_t{0});
  return true;
}

// An image in the layout that its device likes.
Tensor image(const char* op, const Dims& shape, DType dtype, Device device) {
  const FusedKernels* const kernels = accelerator(device).fused();
  return kernels != nullptr && kernels->likes_channels_last(dtype) ? uninitialized_image(op, shape, dtype, device)
                                                                   : uninitialized(op, shape, dtype, device);
}

}  // namespace

Dims conv2d_shape(std::string_view op, const Dims& x, const Dims& weight, const ConvGeometry& g) {
  check(x.size() == 4, op, ": expects an input [N, C, H, W], got shape ", x);
  check(weight.size() == 4, op, ": expects a weight [out, in / groups, height, width], got shape ", weight);
  check_geometry(op, g);
  check(weight[0] % g.groups == 0, op, ": ", weight[0], " output channels do not divide into ", g.groups, " groups");
  check(x[1] == weight[1] * g.groups, op, ": the input of shape ", x, " has ", x[1], " channels, weight ", weight,
        " with ", g.groups, g.groups == 1 ? " group" : " groups", " expects ", weight[1] * g.groups);
  Dims y{x[0], weight[0]};
  for (const int i : {0, 1}) {
    const auto s = static_cast<size_t>(i);
    const int64_t padded = x[i + 2] + 2 * g.padding[s], reach = g.dilation[s] * (weight[i + 2] - 1) + 1;
    check(weight[i + 2] >= 1, op, ": the kernel of weight ", weight, " is empty");
    check(padded >= reach, op, ": the kernel reaches over ", reach, " positions, more than the padded input's ", padded,
          " (", i == 0 ? "height" : "width", "; input ", x, ", weight ", weight, ", padding ", pair_text(g.padding),
          ", dilation ", pair_text(g.dilation), ")");
    y.push_back((padded - reach) / g.stride[s] + 1);
  }
  return y;
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvGeometry& g) {
  const Dims shape = conv2d_shape("conv2d", x.shape(), weight.shape(), g);
  check_same("conv2d", x, weight);
  if (bias.defined()) {
    check(bias.shape() == Dims{weight.shape()[0]}, "conv2d: bias must be [", weight.shape()[0], "], got shape ",
          bias.shape());
    check_same("conv2d", x, bias);
  }
  Tensor y = image("conv2d", shape, x.dtype(), x.device());
  const View bias_view = bias.defined() ? View(bias) : View();
  if (y.numel() > 0) accelerator(x.device()).conv2d(y, x, weight, bias_view, g);
  return y;
}

Tensor conv2d_grad_input(const Tensor& dy, const Tensor& weight, const Dims& input_shape, const ConvGeometry& g) {
  const Dims expected = conv2d_shape("conv2d_grad_input", input_shape, weight.shape(), g);
  check(dy.shape() == expected, "conv2d_grad_input: dy must have shape ", expected, ", got ", dy.shape());
  check_same("conv2d_grad_input", dy, weight);
  Tensor dx = image("conv2d_grad_input", input_shape, dy.dtype(), dy.device());
  if (!is_trivial(dx, dy, weight)) accelerator(dy.device()).conv2d_grad_input(dx, dy, weight, g);
  return dx;
}

Tensor conv2d_grad_weight(const Tensor& dy, const Tensor& x, const Dims& weight_shape, const ConvGeometry& g) {
  const Dims expected = conv2d_shape("conv2d_grad_weight", x.shape(), weight_shape, g);
  check(dy.shape() == expected, "conv2d_grad_weight: dy must have shape ", expected, ", got ", dy.shape());
  check_same("conv2d_grad_weight", dy, x);
  Tensor dw = uninitialized("conv2d_grad_weight", weight_shape, dy.dtype(), dy.device());
  if (!is_trivial(dw, dy, x)) accelerator(dy.device()).conv2d_grad_weight(dw, dy, x, g);
  return dw;
}

}  // namespace loom::raw
