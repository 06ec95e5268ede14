// The table of ops and the door that every op enters through.
#pragma once

#include <cstdint>
#include <tuple>
#include <type_traits>

#include <loom/tensor/context.h>
#include <loom/tensor/tensor.h>

namespace loom::autograd {

enum class Cast : uint8_t { same, low, f32, promote };

// One row of the table. Ops are referred to by address: `ops::matmul`.
struct Op {
  const char* name;
  Cast cast;
  bool gradient;
};

namespace ops {
inline constexpr bool yes = true, no = false;
#define OP(name, cast, gradient) inline constexpr Op name{#name, Cast::cast, gradient};
#include <loom/autograd/ops.def>
#define UNARY(name, kind, f, derivative, keeps, lo, hi, cast) inline constexpr Op name{#name, Cast::cast, true};
#define UNARY_P(name, p, q, kind, f, derivative, keeps, lo, hi, cast) inline constexpr Op name{#name, Cast::cast, true};
#define STEP(name, ...) inline constexpr Op name{#name, Cast::same, true};
#define PREDICATE(name, ...) inline constexpr Op name{#name, Cast::same, false};
#define BINARY(name, kind, f, da, db, keeps, lo, hi, cast) inline constexpr Op name{#name, Cast::cast, true};
#define COMPARE(name, ...) inline constexpr Op name{#name, Cast::same, false};
#define BITWISE(name, ...) inline constexpr Op name{#name, Cast::same, false};
#include <loom/accelerators/elementwise.def>
}  // namespace ops

// What a parameter stands for while functional_call runs a module with other values; itself otherwise.
const Tensor& resolve_parameter(const Tensor& x);

inline const Tensor& resolve(const Tensor& x) {
  return context().parameter_values && x.defined() ? resolve_parameter(x) : x;
}

// The door: what an op computes with, not copied. Undefined tensors pass (optional arguments).
template <class... Tensors>
  requires(std::is_lvalue_reference_v<Tensors> && ...)
auto enter([[maybe_unused]] const Op& op, Tensors&&... tensors) {
  return std::tuple<std::conditional_t<true, const Tensor&, Tensors>...>(resolve(tensors)...);
}

}  // namespace loom::autograd
