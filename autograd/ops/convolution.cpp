#include <loom/autograd/ops/convolution.h>

#include <algorithm>

#include <loom/autograd/compose.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops/derivatives.h>
#include <loom/autograd/ops/elementwise.h>
#include <loom/autograd/ops/reduce.h>
#include <loom/autograd/ops/shape.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/autograd/recompute.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

// The other operand's gradient is all that an operand is kept for.
Saved save_for(const Tensor& other, const Tensor& x) { return as_at_forward(requires_grad(other)) ? save(x) : Saved(); }

Tensor convolve(const Tensor& input, const Tensor& kernel, const Tensor& offset, const ConvGeometry& g) {
  const auto [x, w, b] = enter(ops::conv2d, input, kernel, offset);
  return record(ops::conv2d, raw::conv2d(x, w, b, g), {x, w, b},
                [x_shape = x.shape(), w_shape = w.shape(), x = save_for(w, x), w = save_for(x, w), g](
                    const Tensor& dy, const Needs& needs) {
                  Grads grads(3);
                  if (needs[0]) grads[0] = conv2d_grad_input(dy, w(), x_shape, g);
                  if (needs[1]) grads[1] = conv2d_grad_weight(dy, x(), w_shape, g);
                  if (needs[2]) grads[2] = sum(dy, {0, 2, 3});
                  return grads;
                });
}

void check_rank(const char* op, const Tensor& x, int spatial, const char* dims) {
  check(x.dim() == spatial + 2 || x.dim() == spatial + 1, op, ": given x of shape ", x.shape(), ", expected [N, C, ",
        dims, "] or [C, ", dims, "]");
}

void check_weight(const char* op, const Tensor& weight, int rank, const char* expected) {
  check(weight.dim() == rank, op, ": given weight of shape ", weight.shape(), ", expected ", expected);
}

// conv1d runs as conv2d over one row; what is wrong is said of the line that was given.
void check_line(const Tensor& x, const Tensor& weight, const Conv1dOptions& o) {
  const char* const op = "conv1d";
  check(o.stride >= 1, op, ": stride must be positive, got ", o.stride);
  check(o.dilation >= 1, op, ": dilation must be positive, got ", o.dilation);
  check(o.padding >= 0, op, ": padding must not be negative, got ", o.padding);
  check(o.groups >= 1, op, ": groups must be positive, got ", o.groups);
  check(weight.size(0) % o.groups == 0, op, ": ", weight.size(0), " output channels do not divide into ", o.groups,
        " groups");
  check(x.size(-2) == weight.size(1) * o.groups, op, ": the input of shape ", x.shape(), " has ", x.size(-2),
        " channels, weight ", weight.shape(), " with ", o.groups, o.groups == 1 ? " group" : " groups", " expects ",
        weight.size(1) * o.groups);
  check(weight.size(2) >= 1, op, ": the kernel of weight ", weight.shape(), " is empty");
  const int64_t padded = x.size(-1) + 2 * o.padding, reach = o.dilation * (weight.size(2) - 1) + 1;
  check(padded >= reach, op, ": the kernel reaches over ", reach, " positions, more than the padded input's ", padded,
        " (input ", x.shape(), ", weight ", weight.shape(), ", padding ", o.padding, ", dilation ", o.dilation, ")");
}

// [low, high] of the array that ConvGeometry takes.
std::array<int64_t, 2> both(const Pair& pair) { return {pair.height, pair.width}; }

void check_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvTranspose2dOptions& o) {
  const char* const op = "conv_transpose2d";
  check_rank(op, x, 2, "H, W");
  check_weight(op, weight, 4, "[C, O / groups, KH, KW]");
  check(
      x.size(-3) == weight.size(0), op, ": given x of shape ", x.shape(), " and weight of shape ", weight.shape(),
      ", expected as many channels in x as weight has rows (the weight of a transposed convolution is [C, O / groups, "
      "KH, KW])");
  check(o.groups >= 1 && weight.size(0) % o.groups == 0, op, ": given ", weight.size(0), " channels and ", o.groups,
        " groups, expected groups that divide the channels");
  raw::check_same_device(op, x, weight);
  raw::check_same_dtype(op, x, weight);
  if (bias.defined()) {
    check(bias.dim() == 1 && bias.size(0) == weight.size(1) * o.groups, op, ": given bias of shape ", bias.shape(),
          ", expected [", weight.size(1) * o.groups, "]");
    raw::check_same_device(op, x, bias);
    raw::check_same_dtype(op, x, bias);
  }
  for (const auto& [extra, stride, dilation] : {std::array{o.output_padding.height, o.stride.height, o.dilation.height},
                                                std::array{o.output_padding.width, o.stride.width, o.dilation.width}})
    check(extra >= 0 && (extra < stride || extra < dilation), op, ": given output_padding ", extra, " with stride ",
          stride, " and dilation ", dilation, ", expected less than one of them");
}

int64_t transposed_extent(int64_t extent, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                          int64_t extra) {
  return (extent - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1;
}

}  // namespace

Tensor conv2d_grad_input(const Tensor& gradient, const Tensor& kernel, const Dims& input_shape, const ConvGeometry& g) {
  const auto [dy, w] = enter(ops::conv2d_grad_input, gradient, kernel);
  return record(
      ops::conv2d_grad_input, raw::conv2d_grad_input(dy, w, input_shape, g), {dy, w},
      [w_shape = w.shape(), dy = save_for(w, dy), w = save_for(dy, w), g](const Tensor& h, const Needs& needs) {
        Grads grads(2);
        if (needs[0]) grads[0] = convolve(h, w(), {}, g);
        if (needs[1]) grads[1] = conv2d_grad_weight(dy(), h, w_shape, g);
        return grads;
      });
}

Tensor conv2d_grad_weight(const Tensor& gradient, const Tensor& input, const Dims& weight_shape,
                          const ConvGeometry& g) {
  const auto [dy, x] = enter(ops::conv2d_grad_weight, gradient, input);
  return record(
      ops::conv2d_grad_weight, raw::conv2d_grad_weight(dy, x, weight_shape, g), {dy, x},
      [x_shape = x.shape(), dy = save_for(x, dy), x = save_for(dy, x), g](const Tensor& h, const Needs& needs) {
        Grads grads(2);
        if (needs[0]) grads[0] = convolve(x(), h, {}, g);
        if (needs[1]) grads[1] = conv2d_grad_input(dy(), h, x_shape, g);
        return grads;
      });
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  check_rank("conv2d", x, 2, "H, W");
  check_weight("conv2d", weight, 4, "[O, C / groups, KH, KW]");
  const ConvGeometry g{both(options.stride), both(options.padding), both(options.dilation), options.groups};
  if (x.dim() == 4) return convolve(x, weight, bias, g);
  return squeeze(convolve(unsqueeze(x, 0), weight, bias, g), 0);
}

Tensor conv1d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv1dOptions& options) {
  check_rank("conv1d", x, 1, "L");
  check_weight("conv1d", weight, 3, "[O, C / groups, K]");
  check_line(x, weight, options);
  const ConvGeometry g{{1, options.stride}, {0, options.padding}, {1, options.dilation}, options.groups};
  const Tensor batched = x.dim() == 3 ? x : unsqueeze(x, 0);
  const Tensor y =
      speaking_as("conv1d", [&] { return squeeze(convolve(unsqueeze(batched, 2), unsqueeze(weight, 2), bias, g), 2); });
  return x.dim() == 3 ? y : squeeze(y, 0);
}

// A transposed convolution is the derivative of a convolution with respect to its input.
Tensor conv_transpose2d(const Tensor& x_, const Tensor& weight_, const Tensor& bias_, const ConvTranspose2dOptions& o) {
  return compose(ops::conv_transpose2d, std::tie(x_, weight_, bias_),
                 [&](const Tensor& x, const Tensor& weight, const Tensor& bias) {
                   check_transposed(x, weight, bias, o);
                   const Tensor batched = x.dim() == 4 ? x : unsqueeze(x, 0);
                   const int64_t channels = weight.size(1) * o.groups;
                   const Dims shape{batched.size(0), channels,
                                    transposed_extent(batched.size(2), weight.size(2), o.stride.height,
                                                      o.padding.height, o.dilation.height, o.output_padding.height),
                                    transposed_extent(batched.size(3), weight.size(3), o.stride.width, o.padding.width,
                                                      o.dilation.width, o.output_padding.width)};
                   check(shape[2] >= 1 && shape[3] >= 1, "conv_transpose2d: given x of shape ", x.shape(),
                         ", expected one whose result ", "has positions, not ", shape, " (too much padding)");
                   const ConvGeometry g{both(o.stride), both(o.padding), both(o.dilation), o.groups};
                   // A convolution takes whole strides of output_padding for positions: here they are zeros.
                   const int64_t rows = o.output_padding.height / std::max<int64_t>(1, o.stride.height),
                                 columns = o.output_padding.width / std::max<int64_t>(1, o.stride.width);
                   Tensor y = conv2d_grad_input(rows + columns == 0 ? batched : pad(batched, {0, columns, 0, rows}),
                                                weight, shape, g);
                   if (bias.defined()) y = y + reshape(bias, {1, channels, 1, 1});
                   return x.dim() == 4 ? y : squeeze(y, 0);
                 });
}

}  // namespace loom
