#include <loom/accelerators/cuda/dnn_conv.h>

#include <loom/accelerators/cuda/conv_graph.h>
#include <loom/accelerators/cuda/dnn.h>
#include <loom/accelerators/cuda/dnn_operand.h>
#include <loom/accelerators/cuda/precision.h>

namespace loom::cuda {

namespace {

bool lies_so(const View& x, bool channels_last) {
  const Dims strides = image_strides(x.shape, channels_last);
  for (int d = 0; d < x.rank(); ++d)
    if (x.shape[d] != 1 && x.strides[d] != strides[d]) return false;
  return true;
}

// The layout that most of the memory of images is in; kernels of 16 bits like channels last, where that costs nothing.
bool prefers_channels_last(DType t, std::initializer_list<const View*> views) {
  int64_t last = 0, first = 0;
  for (const View* v : views) {
    const bool is_last = lies_so(*v, true), is_first = lies_so(*v, false);
    if (is_last && !is_first) last += v->numel();
    if (is_first && !is_last) first += v->numel();
  }
  return last > first || (last == first && is_half(t));
}

std::string key_of(const ConvCall& call, const DnnRules& rules) {
  std::string key = "conv";
  append_key(key, call.op);
  append_key(key, call.dtype);
  append_key(key, call.channels_last);
  append_key(key, rules.tf32);
  append_key(key, rules.any_order);
  for (const Dims* d : {&call.y, &call.a, &call.b}) append_key(key, *d);
  for (const auto* pair : {&call.geometry.stride, &call.geometry.padding, &call.geometry.dilation})
    append_key(key, *pair);
  append_key(key, call.geometry.groups);
  return key;
}

}  // namespace

bool conv_by_dnn(Cuda& accelerator, Gpu& gpu, GraphOp op, const View& y, const View& a, const View& b,
                 const ConvGeometry& g) {
  if (dnn_version() == 0 || y.numel() == 0 || a.numel() == 0 || b.numel() == 0) return false;
  const View& other = op == GraphOp::conv_grad_weight ? b : y;  // a and this are images, the third is a small weight
  const bool channels_last = prefers_channels_last(y.dtype, {&a, &other});
  const ConvCall call{op, y.dtype, channels_last, y.shape, a.shape, b.shape, g};
  const DnnRules rules{.tf32 = allows_tf32(), .any_order = allows_any_order()};
  const PlanUse plan(gpu, key_of(call, rules), rules, [&] { return conv_graph(call); });
  if (!plan) return false;
  const auto operand = [&](const View& x, DnnOperand::Use use) {
    return DnnOperand(accelerator, gpu, x, lies_so(x, channels_last), image_strides(x.shape, channels_last), use);
  };
  const DnnOperand first = operand(a, DnnOperand::Use::read), second = operand(b, DnnOperand::Use::read);
  const DnnOperand result = operand(y, DnnOperand::Use::write);
  void* const memory[] = {first.data(), second.data(), result.data()};
  plan.run(memory);
  result.store();
  return true;
}

}  // namespace loom::cuda
