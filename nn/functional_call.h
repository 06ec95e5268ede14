// Runs a module with other tensors in place of its parameters: MAML, second order, ensembles.
//
//   Tensor y = functional_call(net, {{"fc.weight", weight - lr * g}}, x);
//
// The values may have a graph: gradients flow through them. What is not named stays itself.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include <loom/nn/module.h>

namespace loom::nn {

namespace detail {

// In its scope parameters stand for `values`, also those of enclosing scopes.
class StandIns {
 public:
  explicit StandIns(std::shared_ptr<const ParameterValues> values)
      : context_(context()), previous_(std::exchange(context_.parameter_values, std::move(values))) {}
  ~StandIns() { context_.parameter_values = std::move(previous_); }
  StandIns(const StandIns&) = delete;
  StandIns& operator=(const StandIns&) = delete;

 private:
  Context& context_;
  std::shared_ptr<const ParameterValues> previous_;
};

}  // namespace detail

// net(args...) with the named parameters and buffers replaced. Names are those of state_dict(net); where parameters are
// tied, one name replaces them all.
template <Module M, class... Args>
auto functional_call(M& net, const std::map<std::string, Tensor>& values, Args&&... args) {
  const auto outer = context().parameter_values;
  auto stand_ins = outer ? std::make_shared<ParameterValues>(*outer) : std::make_shared<ParameterValues>();
  size_t found = 0;
  std::string names;
  visit_leaves(net, [&]<class Leaf>(const std::string& path, const Leaf& leaf) {
    if constexpr (!std::is_same_v<Leaf, Training>) {
      if (const auto value = values.find(path); leaf.defined() && value != values.end()) {
        check(value->second.defined(), "functional_call: the value of '", path, "' is undefined");
        stand_ins->set(leaf, value->second);
        ++found;
      }
    }
  });
  if (found < values.size()) {
    visit_leaves(net, [&]<class Leaf>(const std::string& path, const Leaf& leaf) {
      if constexpr (!std::is_same_v<Leaf, Training>)
        if (leaf.defined()) names += (names.empty() ? "" : ", ") + path;
    });
    for (const auto& [name, value] : values)
      check((", " + names + ", ").find(", " + name + ", ") != std::string::npos,
            "functional_call: no parameter or buffer is called '", name, "'; there are ", names);
  }
  const detail::StandIns scope(std::move(stand_ins));
  return net(std::forward<Args>(args)...);
}

}  // namespace loom::nn
