// The table of ops and the door that every op enters through.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <tuple>
#include <type_traits>
#include <vector>

#include <loom/accelerators/profile.h>
#include <loom/tensor/context.h>
#include <loom/tensor/tensor.h>

namespace loom::autograd {

enum class Cast : uint8_t { same, low, f32, promote, unsafe };  // under autocast; what they mean: autocast.h

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

// Tells observers of an op, from here to the end of its function.
class OpRange {
 public:
  OpRange(const Op& op, std::span<const Tensor* const> arguments) {
    if (profile::observed()) [[unlikely]]
      begin(op, arguments);
  }
  OpRange(const Op& op, std::span<const Tensor> arguments) {
    if (profile::observed()) [[unlikely]]
      begin(op, arguments);
  }

 private:
  void begin(const Op& op, std::span<const Tensor* const> arguments);
  void begin(const Op& op, std::span<const Tensor> arguments);
  profile::Range range_;
};

// Replaces, under autocast, those arguments that the op wants in another dtype; `own` keeps them.
void autocast_arguments(const Op& op, std::span<const Tensor*> arguments, std::span<Tensor> own);

// What an op computes with, for `const auto [x, y] = enter(...)`: the arguments themselves, or what they were cast to.
template <size_t n>
class Entered {
 public:
  template <class... Tensors>
  explicit Entered(const Op& op, const Tensors&... tensors)
      : arguments_{&resolve(tensors)...}, range_(op, std::span<const Tensor* const>(arguments_)) {
    if (context().autocast) [[unlikely]]
      autocast_arguments(op, arguments_, own_);
  }
  [[gnu::always_inline]] ~Entered() {}  // NOLINT: called, it would cost more than what it does
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  template <size_t i>
  const Tensor& get() const {
    return *arguments_[i];
  }

 private:
  std::array<const Tensor*, n> arguments_;
  std::array<Tensor, n> own_;
  OpRange range_;
};

// The same for any number of arguments; an OpRange tells of such an op.
std::vector<Tensor> enter_all(const Op& op, const std::vector<Tensor>& tensors);

// The door. The arguments outlive what it returns. Undefined tensors pass (optional arguments).
template <class... Tensors>
  requires(std::is_lvalue_reference_v<Tensors> && ...)
auto enter(const Op& op, Tensors&&... tensors) {
  return Entered<sizeof...(Tensors)>(op, tensors...);
}

}  // namespace loom::autograd

template <size_t n>
struct std::tuple_size<loom::autograd::Entered<n>> : std::integral_constant<size_t, n> {};
template <size_t i, size_t n>
struct std::tuple_element<i, loom::autograd::Entered<n>> {
  using type = const loom::Tensor;
};
