#include <loom/nn/conv.h>

#include <cmath>

#include <loom/autograd/ops/shape.h>
#include <loom/nn/init.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

namespace {

void check_channels(const char* layer, int64_t in, int64_t out, int64_t groups) {
  check(groups > 0, layer, ": groups must be a positive number, got ", groups);
  check(in % groups == 0, layer, ": in_channels must be divisible by groups, got ", in, " and ", groups);
  check(out % groups == 0, layer, ": out_channels must be divisible by groups, got ", out, " and ", groups);
}

void check_same(const char* layer, const Padding& padding, int64_t height_stride, int64_t width_stride) {
  check(!padding.same || (height_stride == 1 && width_stride == 1), layer, ": padding 'same' is for stride 1 only");
}

void reset(const Parameter& weight, const Parameter& bias) {
  init::kaiming_uniform_(weight, std::sqrt(5.0));
  if (!bias.defined()) return;
  const int64_t fan_in = init::fans(weight).in;
  const double bound = fan_in > 0 ? 1 / std::sqrt(static_cast<double>(fan_in)) : 0;
  init::uniform_(bias, -bound, bound);
}

// "same" padding of one dim: half of it on each side; where the sum is odd the end gets one more, by padding x itself.
struct Same {
  int64_t each, extra;
  Same(int64_t kernel, int64_t dilation) : each(dilation * (kernel - 1) / 2), extra(dilation * (kernel - 1) % 2) {}
};

}  // namespace

Padding::Padding(std::string_view mode) : same(mode == "same") {
  check(same || mode == "valid", "padding: a number, same or valid is expected, got ", mode);
}

Conv1d::Conv1d(int64_t in_channels, int64_t out_channels, int64_t kernel_size, const Conv1dOptions& o) : options(o) {
  check_channels("Conv1d", in_channels, out_channels, o.groups);
  check_same("Conv1d", o.padding, o.stride, o.stride);
  weight = uninitialized({out_channels, in_channels / o.groups, kernel_size}, o);
  if (o.bias) bias = uninitialized({out_channels}, o);
  if (!context().skip_init) reset_parameters();
}

void Conv1d::reset_parameters() const { reset(weight, bias); }

Tensor Conv1d::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  loom::Conv1dOptions o{options.stride, options.padding.amount.width, options.dilation, options.groups};
  if (!options.padding.same) return conv1d(x, weight, bias, o);
  const Same same(weight.size(2), options.dilation);
  o.padding = same.each;
  return conv1d(same.extra ? pad(x, {0, same.extra}) : x, weight, bias, o);
}

Conv2d::Conv2d(int64_t in_channels, int64_t out_channels, Pair kernel_size, const Conv2dOptions& o) : options(o) {
  check_channels("Conv2d", in_channels, out_channels, o.groups);
  check_same("Conv2d", o.padding, o.stride.height, o.stride.width);
  weight = uninitialized({out_channels, in_channels / o.groups, kernel_size.height, kernel_size.width}, o);
  if (o.bias) bias = uninitialized({out_channels}, o);
  if (!context().skip_init) reset_parameters();
}

void Conv2d::reset_parameters() const { reset(weight, bias); }

Tensor Conv2d::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  loom::Conv2dOptions o{options.stride, options.padding.amount, options.dilation, options.groups};
  if (!options.padding.same) return conv2d(x, weight, bias, o);
  const Same height(weight.size(2), options.dilation.height), width(weight.size(3), options.dilation.width);
  o.padding = Pair(height.each, width.each);
  const bool uneven = height.extra || width.extra;
  return conv2d(uneven ? pad(x, {0, width.extra, 0, height.extra}) : x, weight, bias, o);
}

ConvTranspose2d::ConvTranspose2d(int64_t in_channels, int64_t out_channels, Pair kernel_size,
                                 const ConvTranspose2dOptions& o)
    : options(o) {
  check_channels("ConvTranspose2d", in_channels, out_channels, o.groups);
  weight = uninitialized({in_channels, out_channels / o.groups, kernel_size.height, kernel_size.width}, o);
  if (o.bias) bias = uninitialized({out_channels}, o);
  if (!context().skip_init) reset_parameters();
}

void ConvTranspose2d::reset_parameters() const { reset(weight, bias); }

Tensor ConvTranspose2d::operator()(const Tensor& x) const {
  const ModuleRange range(*this);
  return conv_transpose2d(x, weight, bias,
                          {options.stride, options.padding, options.output_padding, options.dilation, options.groups});
}

}  // namespace loom::nn
