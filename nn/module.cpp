#include <loom/nn/module.h>

#include <loom/autograd/engine.h>
#include <loom/nn/mismatches.h>
#include <loom/tensor/raw.h>

namespace loom::nn {

namespace {

Tensor converted(const Tensor& x, const TensorOptions& options) {
  Tensor y = raw::alias(x);
  if (options.dtype && is_floating(y.dtype()) && y.dtype() != *options.dtype) y = raw::cast(y, *options.dtype);
  if (options.device && y.device() != *options.device) y = raw::to_device(y, *options.device);
  return y;
}

}  // namespace

void check_state(const std::vector<NamedTensor>& state, const std::map<std::string, Tensor>& values, bool strict) {
  Mismatches mismatches(values);
  for (const auto& [name, tensor] : state) mismatches.expect(name, tensor.shape(), tensor.dtype(), strict);
  if (strict) mismatches.refuse_others();
  const std::string text = mismatches.text();
  check(text.empty(), "load_state_dict: ", text);
}

void load_state(const std::vector<NamedTensor>& state, const std::map<std::string, Tensor>& values, bool strict) {
  check_state(state, values, strict);
  const NoGrad no_grad;
  for (const auto& [name, tensor] : state)
    if (const auto found = values.find(name); found != values.end() && found->second.defined())
      tensor.copy_(found->second);
}

void convert_state(const std::vector<NamedTensor>& tensors, const TensorOptions& options) {
  const NoGrad no_grad;
  for (const auto& [name, tensor] : tensors) {
    const Tensor value = converted(tensor, options);
    if (value.dtype() == tensor.dtype() && value.device() == tensor.device()) continue;
    const Tensor grad = tensor.grad();
    if (tensor.requires_grad()) set_grad_buffer(tensor, {});  // it has the old dtype and device
    if (grad.defined()) tensor.set_grad({});
    tensor.set_data(value);
    if (grad.defined()) tensor.set_grad(converted(grad, options));
  }
}

}  // namespace loom::nn
