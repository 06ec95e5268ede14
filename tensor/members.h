// The members of a plain struct as a tuple of references, so that samples, batches and results may be structs with
// names.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

namespace loom {

template <class T>
concept PlainStruct = std::is_aggregate_v<T> && std::is_class_v<T>;

namespace members_detail {

constexpr size_t most = 8;

// Never defined, asked only whether a member, or a base class, could be made from it.
struct Anything {
  template <class T>
  operator T() const;  // NOLINT
};
template <class Derived>
struct AnyBase {
  template <class T>
    requires(std::is_base_of_v<T, Derived> && !std::is_same_v<T, Derived>)
  operator T() const;  // NOLINT
};

// How many members can be given, each as a value: an array counts as its elements.
template <class T, class... Given>
constexpr size_t count_values() {
  if constexpr (sizeof...(Given) <= most && requires { T{Given{}..., Anything{}}; })
    return count_values<T, Given..., Anything>();
  else
    return sizeof...(Given);
}

// How many can be given as {}: an array counts once, what cannot be empty ends the count.
template <class T>
constexpr size_t count_empty() {
  // clang-format off
  if constexpr (requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}}; }) return most + 1;
  else if constexpr (requires { T{{}, {}, {}, {}, {}, {}, {}, {}}; }) return 8;
  else if constexpr (requires { T{{}, {}, {}, {}, {}, {}, {}}; }) return 7;
  else if constexpr (requires { T{{}, {}, {}, {}, {}, {}}; }) return 6;
  else if constexpr (requires { T{{}, {}, {}, {}, {}}; }) return 5;
  else if constexpr (requires { T{{}, {}, {}, {}}; }) return 4;
  else if constexpr (requires { T{{}, {}, {}}; }) return 3;
  else if constexpr (requires { T{{}, {}}; }) return 2;
  else if constexpr (requires { T{{}}; }) return 1;
  else return 0;
  // clang-format on
}

template <class T>
constexpr size_t count_members() {
  constexpr size_t values = count_values<T>();
  return values == count_empty<T>() && values <= most && !requires { T{AnyBase<T>{}}; } ? values : 0;
}

}  // namespace members_detail

// 1 to 8 members that can be default-constructed, no arrays and no base classes.
template <class T>
concept OpenStruct = PlainStruct<T> && members_detail::count_members<T>() > 0;

template <class T>
  requires OpenStruct<std::remove_const_t<T>>
auto tie_members(T& s) {
  constexpr size_t n = members_detail::count_members<std::remove_const_t<T>>();
  // clang-format off
  if constexpr (n == 1) { auto& [a] = s; return std::tie(a); }
  else if constexpr (n == 2) { auto& [a, b] = s; return std::tie(a, b); }
  else if constexpr (n == 3) { auto& [a, b, c] = s; return std::tie(a, b, c); }
  else if constexpr (n == 4) { auto& [a, b, c, d] = s; return std::tie(a, b, c, d); }
  else if constexpr (n == 5) { auto& [a, b, c, d, e] = s; return std::tie(a, b, c, d, e); }
  else if constexpr (n == 6) { auto& [a, b, c, d, e, f] = s; return std::tie(a, b, c, d, e, f); }
  else if constexpr (n == 7) { auto& [a, b, c, d, e, f, g] = s; return std::tie(a, b, c, d, e, f, g); }
  else { auto& [a, b, c, d, e, f, g, h] = s; return std::tie(a, b, c, d, e, f, g, h); }
  // clang-format on
}

}  // namespace loom
