// Ops made of other ops.
#pragma once

#include <tuple>
#include <utility>

#include <loom/autograd/autocast.h>
#include <loom/autograd/op.h>
#include <loom/autograd/ops/speaking_as.h>

namespace loom::autograd {

// compose(ops::dot, std::tie(a_, b_), [&](const Tensor& a, const Tensor& b) { ... }): calls f with the arguments, cast
// as the op's row says; the ops inside run in what they get, and errors name `op`.
template <class... Tensors, class F>
auto compose(const Op& op, const std::tuple<Tensors&...>& arguments, const F& f) {
  return std::apply(
      [&](Tensors&... given) {
        const auto entered = enter(op, given...);
        const NoAutocast as_given;
        return speaking_as(op.name, [&] {
          return [&]<size_t... i>(std::index_sequence<i...>) {
            return f(entered.template get<i>()...);
          }(std::index_sequence_for<Tensors...>());
        });
      },
      arguments);
}

}  // namespace loom::autograd
