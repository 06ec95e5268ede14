// Named leaves of modules: Parameter is trained, Buffer is state that is not.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

// A leaf tensor that requires grad. It is a Tensor, so it goes wherever one goes (sharing). Copying a Parameter copies
// its values: copying a module can therefore not tie layers by accident; tie(a, b) (nn/module.h) shares on purpose.
class Parameter : public Tensor {
 public:
  Parameter() = default;  // undefined: an optional parameter that is absent
  explicit Parameter(const Tensor& value, bool requires_grad = true);
  Parameter(const Parameter& other);
  Parameter& operator=(const Parameter& other);
  Parameter(Parameter&&) noexcept = default;
  Parameter& operator=(Parameter&&) noexcept = default;
  ~Parameter() = default;

  void share(const Parameter& other) { static_cast<Tensor&>(*this) = other; }
};

// A tensor that belongs to a module's state, is saved and broadcast, and gets no gradient (running statistics). Not
// persistent: not saved. Copying copies the values.
class Buffer : public Tensor {
 public:
  Buffer() = default;
  explicit Buffer(const Tensor& value, bool persistent = true);
  Buffer(const Buffer& other);
  Buffer& operator=(const Buffer& other);
  Buffer(Buffer&&) noexcept = default;
  Buffer& operator=(Buffer&&) noexcept = default;
  ~Buffer() = default;
  bool persistent() const { return persistent_; }

 private:
  bool persistent_ = true;
};

// A parameter or buffer with its path in the module ("conv1.weight").
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// What parameters stand for during functional_call (nn/functional_call.h).
class ParameterValues {
 public:
  void set(const Tensor& parameter, const Tensor& value) { values_[parameter.body_pointer().get()] = value; }
  const Tensor* find(const Tensor& parameter) const {
    const auto found = values_.find(parameter.body_pointer().get());
    return found == values_.end() ? nullptr : &found->second;
  }

 private:
  std::unordered_map<const Tensor::Body*, Tensor> values_;
};

}  // namespace loom
