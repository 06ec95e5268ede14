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

// x in f32 where it has 16 bits.
inline Tensor wide(const Tensor& x) { return x.defined() && is_half(x.dtype()) ? x.to(DType::f32) : x; }

// f of the arguments; where they have 16 bits f runs in f32, backward too, and its result is rounded once: what lies
// between may be beyond 16 bits though neither result nor gradient is.
template <class... Tensors, class F>
Tensor in_wide(const F& f, const Tensors&... arguments) {
  const DType dtype = result_type({&arguments...});
  return is_half(dtype) ? f(wide(arguments)...).to(dtype) : f(arguments...);
}

template <class... Tensors, class F>
Tensor compose_wide(const Op& op, const std::tuple<Tensors&...>& arguments, const F& f) {
  return compose(op, arguments, [&](const auto&... entered) { return in_wide(f, entered...); });
}

}  // namespace loom::autograd
