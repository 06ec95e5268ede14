#include <loom/autograd/parameter.h>

#include <loom/autograd/graph.h>
#include <loom/tensor/raw.h>

namespace loom {

Parameter::Parameter(const Tensor& value, bool requires_grad) : Tensor(raw::alias(value)) {
  if (requires_grad) requires_grad_(true);
}

// The copy's tensor is one of its own.
Parameter::Parameter(const Parameter& other) : Tensor() {  // NOLINT(bugprone-copy-constructor-init)
  if (!other.defined()) return;
  Tensor::operator=(raw::clone(other));
  if (other.requires_grad()) requires_grad_(true);
}

Parameter& Parameter::operator=(const Parameter& other) {
  if (this != &other) *this = Parameter(other);
  return *this;
}

Buffer::Buffer(const Tensor& value, bool persistent) : Tensor(raw::alias(value)), persistent_(persistent) {}

// NOLINTNEXTLINE(bugprone-copy-constructor-init)
Buffer::Buffer(const Buffer& other) : Tensor(), persistent_(other.persistent_) {
  if (other.defined()) Tensor::operator=(raw::clone(other));
}

Buffer& Buffer::operator=(const Buffer& other) {
  if (this != &other) *this = Buffer(other);
  return *this;
}

namespace autograd {

const Tensor& resolve_parameter(const Tensor& x) {
  const Tensor* const value = context().parameter_values->find(x);
  return value ? *value : x;
}

}  // namespace autograd
}  // namespace loom
