// Modules, and functions of one tensor, one after the other:
//
//   nn::Sequential net{nn::Linear(4, 8), nn::ReLU(), [](const Tensor& x) { return x * 2.0; }, nn::Linear(8, 2)};
//
// Keys are PyTorch's: "0.weight", "3.weight".
#pragma once

#include <loom/nn/module.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

template <class... Modules>
class Sequential {
 public:
  Sequential(Modules... modules) : modules_(std::move(modules)...) {}  // NOLINT: Sequential net{a, b}

  Tensor operator()(const Tensor& x) const {
    Tensor y = x;
    std::apply([&y](const auto&... module) { ((y = call(module, y)), ...); }, modules_);
    return y;
  }
  template <size_t i>
  auto& get() {
    return std::get<i>(modules_);
  }
  template <size_t i>
  const auto& get() const {
    return std::get<i>(modules_);
  }

  template <class Visitor>
  void members(Visitor&& visitor) {
    size_t i = 0;
    std::apply([&](auto&... module) { (visitor(std::to_string(i++), module), ...); }, modules_);
  }
  template <class Visitor>
  void members(Visitor&& visitor) const {
    size_t i = 0;
    std::apply([&](const auto&... module) { (visitor(std::to_string(i++), module), ...); }, modules_);
  }

 private:
  template <class M>
  static Tensor call(const M& module, const Tensor& x) {
    if constexpr (Module<const M>) {
      const ModuleRange range(module);
      return module(x);
    } else {
      return module(x);
    }
  }

  std::tuple<Modules...> modules_;
};

}  // namespace loom::nn
