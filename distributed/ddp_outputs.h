// The tensors in whatever a forward returns.
#pragma once

#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom::detail {

struct AnyMember {
  template <class T>
  void operator()(std::string_view, T&&) const {}
};
template <class T>
concept WithMembers = requires(const T& t) { t.members(AnyMember{}); };
template <class T>
concept TupleLike = requires { std::tuple_size<T>::value; };
template <class T>
concept RangeLike = requires(const T& t) {
  t.begin();
  t.end();
};
template <class T>
inline constexpr bool is_variant = false;
template <class... T>
inline constexpr bool is_variant<std::variant<T...>> = true;
template <class T>
concept PointerLike = requires(const T& t) {
  *t;
  static_cast<bool>(t);
};

// Appends the tensors in `value`: Tensors, optionals, pointers, tuples, pairs, arrays, vectors, maps, variants, and
// structs with LOOM_MEMBERS, nested as they may be. False if there are parts that cannot be looked into.
template <class T>
bool find_tensors(const T& value, std::vector<Tensor>& out) {
  if constexpr (std::is_base_of_v<Tensor, T>) {
    if (value.defined()) out.push_back(value);
    return true;
  } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                       std::is_convertible_v<const T&, std::string_view>) {
    return true;
  } else if constexpr (WithMembers<T>) {
    bool all = true;
    value.members([&](std::string_view, const auto& member) { all = find_tensors(member, out) && all; });
    return all;
  } else if constexpr (RangeLike<T>) {
    bool all = true;
    for (const auto& element : value) all = find_tensors(element, out) && all;
    return all;
  } else if constexpr (TupleLike<T>) {
    bool all = true;
    std::apply([&](const auto&... parts) { ((all = find_tensors(parts, out) && all), ...); }, value);
    return all;
  } else if constexpr (is_variant<T>) {
    return std::visit([&](const auto& held) { return find_tensors(held, out); }, value);
  } else if constexpr (PointerLike<T>) {
    return value ? find_tensors(*value, out) : true;
  } else {
    return false;
  }
}

}  // namespace loom::detail
