// The members of a plain struct as a tuple of references, so that samples and batches may be structs with names.
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

namespace loom::data {

namespace members_detail {

struct Anything {
  template <class T>
  operator T() const;  // NOLINT: never defined, asked only whether a member could be made from it
};

template <class T, class... Given>
constexpr size_t count_members() {
  if constexpr (requires { T{Given{}..., Anything{}}; })
    return count_members<T, Given..., Anything>();
  else
    return sizeof...(Given);
}

}  // namespace members_detail

template <class T>
concept PlainStruct = std::is_aggregate_v<T> && std::is_class_v<T> && !std::is_array_v<T>;

template <PlainStruct T>
inline constexpr size_t member_count = members_detail::count_members<T>();

// Up to 8 members, no nested arrays and no base classes.
template <PlainStruct T>
auto tie_members(T& s) {
  constexpr size_t n = member_count<std::remove_const_t<T>>;
  static_assert(n >= 1 && n <= 8, "a struct of 1 to 8 members");
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

}  // namespace loom::data
