// The tensors in a value of any type: an argument or a result of a forward, a batch.
//
// Looked into, nested as they may be: Tensor (and what derives from it), optional, pointers, tuples, pairs, variants,
// whatever has begin() and end(), structs with LOOM_MEMBERS, and plain structs (members.h). Everything else is opaque.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <loom/tensor/members.h>
#include <loom/tensor/tensor.h>

namespace loom {
namespace nested {

enum class Kind : uint8_t { tensor, none, listed, range, tuple, variant, optional, pointer, plain, opaque };

struct AnyMember {
  template <class T>
  void operator()(std::string_view, T&&) const {}
};
template <class T>
concept Listed = requires(const T& t) { t.members(AnyMember{}); };
template <class T>
using Element = std::remove_cvref_t<decltype(*std::declval<T&>().begin())>;
// A path is a range of paths: not to be looked into.
template <class T>
concept Range = requires(const T& t) {
  t.begin();
  t.end();
} && !std::is_same_v<Element<T>, T>;
// Elements are its own: a const one has const elements, which views do not.
template <class T>
concept OwningRange = Range<T> && std::is_lvalue_reference_v<decltype(*std::declval<T&>().begin())> &&
                      !std::is_const_v<std::remove_reference_t<decltype(*std::declval<T&>().begin())>> &&
                      std::is_const_v<std::remove_reference_t<decltype(*std::declval<const T&>().begin())>>;
template <class T>
concept Tuple = requires { std::tuple_size<T>::value; };
template <class T>
concept Pointer = requires(const T& t) {
  static_cast<bool>(t);
  sizeof(*t);
} && !std::is_array_v<T>;
template <class T>
inline constexpr bool is_variant = false;
template <class... T>
inline constexpr bool is_variant<std::variant<T...>> = true;
template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class T>
constexpr Kind kind_of() {
  if constexpr (std::is_base_of_v<Tensor, T>)
    return Kind::tensor;
  else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_empty_v<T> ||
                     std::is_convertible_v<const T&, std::string_view>)
    return Kind::none;
  else if constexpr (Listed<T>)
    return Kind::listed;
  else if constexpr (Range<T>)
    return Kind::range;
  else if constexpr (Tuple<T>)
    return Kind::tuple;
  else if constexpr (is_variant<T>)
    return Kind::variant;
  else if constexpr (is_optional<T>)
    return Kind::optional;
  else if constexpr (Pointer<T>)
    return Kind::pointer;
  else if constexpr (OpenStruct<T>)
    return Kind::plain;
  else
    return Kind::opaque;
}

// Whether a T may hold Tensors that are its own: that go with it when it is copied. Seen: types on the way, which may
// be recursive.
template <class T, class... Seen>
constexpr bool may_own() {
  constexpr Kind kind = kind_of<T>();
  [[maybe_unused]] constexpr auto any = []<class... Parts>(std::type_identity<std::tuple<Parts...>>) {
    return ((!std::is_reference_v<Parts> && may_own<std::remove_cvref_t<Parts>, T, Seen...>()) || ...);
  };
  if constexpr ((std::is_same_v<T, Seen> || ...))
    return false;
  else if constexpr (kind == Kind::range)
    return OwningRange<T> && may_own<Element<T>, T, Seen...>();
  else if constexpr (kind == Kind::optional)
    return may_own<typename T::value_type, T, Seen...>();
  else if constexpr (kind == Kind::variant)
    return []<class... Held>(std::type_identity<std::variant<Held...>>) {
      return (may_own<Held, T, Seen...>() || ...);
    }(std::type_identity<T>());
  else if constexpr (kind == Kind::tuple)
    return [&]<size_t... i>(std::index_sequence<i...>) {
      return any(std::type_identity<std::tuple<std::tuple_element_t<i, T>...>>());
    }(std::make_index_sequence<std::tuple_size_v<T>>());
  else if constexpr (kind == Kind::plain)
    return []<class... Members>(std::type_identity<std::tuple<Members&...>>) {
      return (may_own<std::remove_cv_t<Members>, T, Seen...>() || ...);
    }(std::type_identity<decltype(tie_members(std::declval<T&>()))>());
  else
    return kind == Kind::tensor || kind == Kind::listed;
}

// Pointees that are being looked into: a pointer back to one of them leads nowhere new.
class Path {
 public:
  explicit Path(const void* pointee) : pointee_(pointee), above_(std::exchange(innermost, this)) {}
  ~Path() { innermost = above_; }
  Path(const Path&) = delete;
  Path& operator=(const Path&) = delete;
  bool is_new() const {
    for (const Path* p = above_; p != nullptr; p = p->above_)
      if (p->pointee_ == pointee_) return false;
    return true;
  }

 private:
  static inline thread_local const Path* innermost = nullptr;
  const void* pointee_;
  const Path* above_;
};

// Calls f(tensor, std::bool_constant) for each tensor, in the same order for a value and its copies. The second
// argument tells whether the tensor is the value's own; others (behind pointers, in views) come as const. False if
// there are parts that cannot be looked into.
template <bool own = true, class T, class F>
bool visit_tensors(T& value, const F& f) {
  constexpr Kind kind = kind_of<std::remove_const_t<T>>();
  bool all = kind != Kind::opaque;
  [[maybe_unused]] const auto part = [&](auto& x) { all = visit_tensors<own>(x, f) && all; };
  [[maybe_unused]] const auto foreign = [&](const auto& x) { all = visit_tensors<false>(x, f) && all; };
  if constexpr (kind == Kind::tensor)
    f(value, std::bool_constant<own>());
  else if constexpr (kind == Kind::listed)
    value.members([&](std::string_view, auto&& member) { part(member); });
  else if constexpr (kind == Kind::range && OwningRange<std::remove_const_t<T>>)
    for (auto& element : value) part(element);
  else if constexpr (kind == Kind::range)
    for (const auto& element : std::as_const(value)) foreign(element);
  else if constexpr (kind == Kind::tuple)
    [&]<size_t... i>(std::index_sequence<i...>) {
      const auto at = [&]<size_t k>() {
        if constexpr (std::is_reference_v<std::tuple_element_t<k, T>>)
          foreign(std::get<k>(value));
        else
          part(std::get<k>(value));
      };
      (at.template operator()<i>(), ...);
    }(std::make_index_sequence<std::tuple_size_v<T>>());
  else if constexpr (kind == Kind::variant) {
    if (!value.valueless_by_exception()) std::visit(part, value);
  } else if constexpr (kind == Kind::optional) {
    if (value) part(*value);
  } else if constexpr (kind == Kind::pointer) {
    if (value) {
      const Path path(std::addressof(*value));
      if (path.is_new()) foreign(*value);
    }
  } else if constexpr (kind == Kind::plain) {
    std::apply([&](auto&... members) { (part(members), ...); }, tie_members(value));
  }
  return all;
}

// Whether T is one that can be replaced where it is its holder's own: a Parameter is its module's.
template <class T>
inline constexpr bool replaceable = std::is_same_v<T, Tensor>;

// Appends the tensors in `value`. False if there are parts that cannot be looked into.
template <class T>
bool find_tensors(const T& value, std::vector<Tensor>& out) {
  return visit_tensors(value, [&](const Tensor& x, auto) {
    if (x.defined()) out.push_back(x);
  });
}

}  // namespace nested

// The same value with f(tensor) in place of each of its own tensors: moving a batch to a device, changing its dtype.
template <class F, class T>
T map_tensors(const F& f, T value) {
  static_assert(!PlainStruct<T> || nested::kind_of<T>() != nested::Kind::opaque,
                "a struct of 1 to 8 members, or LOOM_MEMBERS");
  nested::visit_tensors(value, [&]<class X>(X& x, auto own) {
    if constexpr (own && nested::replaceable<X>)
      if (x.defined()) x = f(std::as_const(x));
  });
  return value;
}

}  // namespace loom
