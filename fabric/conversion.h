// What a forward gets and returns, in the dtypes that a precision wants. Which tensors are seen: tensor/nested.h. Only
// those are replaced that a value owns: not behind pointers, in views, or through references.
#pragma once

#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/fabric/precision.h>
#include <loom/tensor/nested.h>

namespace loom {

namespace conversion_detail {

inline Tensor input(const Tensor& x, const Precision& precision) {
  return x.defined() && is_floating(x.dtype()) ? precision.convert_input(x) : x;
}

// What becomes of the tensors that a value owns, in the order of visit_tensors. None where nothing changes, and for a
// module, which a Parameter or Buffer of its own betrays.
template <class T>
std::optional<std::vector<Tensor>> converted_tensors(const T& value, const Precision& precision) {
  std::vector<Tensor> out;
  bool changed = false, module = false;
  nested::visit_tensors(value, [&]<class X>(const X& x, auto own) {
    if constexpr (own && nested::replaceable<X>)
      changed = !out.emplace_back(input(x, precision)).is_same(x) || changed;
    else if constexpr (own)
      module = true;
  });
  if (!changed || module) return {};
  return out;
}

template <class T>
void replace_tensors(T& value, const std::vector<Tensor>& by) {
  size_t next = 0;
  nested::visit_tensors(value, [&]<class X>(X& x, auto own) {
    if constexpr (own && nested::replaceable<std::remove_const_t<X>>) {
      if constexpr (!std::is_const_v<X>) x = by[next];
      ++next;
    }
  });
}

template <class T>
inline constexpr bool is_span = false;
template <size_t n>
inline constexpr bool is_span<std::span<const Tensor, n>> = true;

struct Nothing {};

}  // namespace conversion_detail

// One argument on its way to a forward. A Tensor arrives as a Tensor, a span of const Tensors as one over what became
// of them, what else may own tensors as const T&, a copy only where a tensor changes (as T&& if it was given away,
// changed in place); all other things as they are.
template <class Arg>
class ConvertedArgument {
  using Plain = std::remove_cvref_t<Arg>;
  static constexpr bool is_tensor = std::is_base_of_v<Tensor, Plain>;
  static constexpr bool is_span = conversion_detail::is_span<Plain>;
  static constexpr bool given_away = !std::is_reference_v<Arg> && !std::is_const_v<Arg>;
  static constexpr bool may_change =
      !is_tensor && !is_span && nested::may_own<Plain>() && (given_away || std::is_copy_constructible_v<Plain>);
  using Own = std::conditional_t<is_tensor, Tensor,
                                 std::conditional_t<is_span, std::vector<Tensor>,
                                                    std::conditional_t<may_change && !given_away, std::optional<Plain>,
                                                                       conversion_detail::Nothing>>>;

 public:
  ConvertedArgument(Arg&& arg, [[maybe_unused]] const Precision& precision) : given_(arg) {
    using namespace conversion_detail;
    if constexpr (is_tensor) {
      own_ = input(given_, precision);
    } else if constexpr (is_span) {
      for (const Tensor& x : given_) own_.push_back(input(x, precision));
    } else if constexpr (may_change) {
      if (const auto tensors = converted_tensors(std::as_const(given_), precision)) {
        if constexpr (given_away)
          replace_tensors(given_, *tensors);
        else
          replace_tensors(own_.emplace(given_), *tensors);
      }
    }
  }
  ConvertedArgument(const ConvertedArgument&) = delete;
  ConvertedArgument& operator=(const ConvertedArgument&) = delete;

  // Lasts as long as this.
  decltype(auto) get() {
    if constexpr (is_tensor)
      return Tensor(own_);
    else if constexpr (is_span)
      return Plain(own_.data(), own_.size());
    else if constexpr (may_change && !given_away)
      return own_ ? std::as_const(*own_) : std::as_const(given_);
    else
      return static_cast<Arg&&>(given_);
  }

 private:
  std::remove_reference_t<Arg>& given_;
  [[no_unique_address]] Own own_;
};

// What a forward's result is kept as.
template <class R>
using ConvertedResult = std::conditional_t<std::is_base_of_v<Tensor, R>, Tensor, R>;

// Converts the tensors of a result in place, and appends all that are in it. False if there are parts that cannot be
// looked into.
template <class R>
bool convert_result(R& result, const Precision& precision, std::vector<Tensor>& found) {
  return nested::visit_tensors(result, [&]<class X>(X& x, auto own) {
    if (!x.defined()) return;
    if constexpr (own && nested::replaceable<X>)
      if (is_floating(x.dtype())) x = precision.convert_output(x);
    found.push_back(x);
  });
}

}  // namespace loom
