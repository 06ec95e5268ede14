#include <loom/nn/module.h>

#include <loom/autograd/engine.h>
#include <loom/tensor/raw.h>

namespace loom::nn {

namespace {

void append(std::string& list, const std::string& entry) { list += (list.empty() ? "" : ", ") + entry; }

// What keeps `values` from being loaded; empty when nothing does.
std::string mismatches(const std::vector<NamedTensor>& state, const std::map<std::string, Tensor>& values,
                       bool strict) {
  std::string missing, unexpected, shapes;
  std::unordered_set<std::string_view> known;
  for (const auto& [name, tensor] : state) {
    known.insert(name);
    const auto found = values.find(name);
    if (found == values.end() || !found->second.defined()) {
      if (strict) append(missing, name);
    } else if (found->second.shape() != tensor.shape()) {
      append(shapes, str(name, " is ", tensor.shape(), " here and ", found->second.shape(), " in the values"));
    }
  }
  if (strict)
    for (const auto& [name, value] : values)
      if (!known.contains(name)) append(unexpected, name);
  std::string text;
  for (const auto& [title, list] : {std::pair("missing keys: ", missing), std::pair("unexpected keys: ", unexpected),
                                    std::pair("shapes differ: ", shapes)})
    if (!list.empty()) text += (text.empty() ? "" : "; ") + (title + list);
  return text;
}

Tensor converted(const Tensor& x, const TensorOptions& options) {
  Tensor y = raw::alias(x);
  if (options.dtype && is_floating(y.dtype()) && y.dtype() != *options.dtype) y = raw::cast(y, *options.dtype);
  if (options.device && y.device() != *options.device) y = raw::to_device(y, *options.device);
  return y;
}

}  // namespace

void check_state(const std::vector<NamedTensor>& state, const std::map<std::string, Tensor>& values, bool strict) {
  const std::string text = mismatches(state, values, strict);
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
