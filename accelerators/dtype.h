// Element types, their promotion, and the one door from a run-time dtype to a C++ type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <loom/accelerators/error.h>
#include <loom/accelerators/half.h>

namespace loom {

enum class DType : uint8_t { f64, f32, f16, bf16, i64, i32, u8, boolean };
using enum DType;

inline constexpr int dtype_count = 8;

constexpr size_t item_size(DType t) {
  constexpr size_t sizes[] = {8, 4, 2, 2, 8, 4, 1, 1};
  return sizes[static_cast<int>(t)];
}
constexpr bool is_floating(DType t) { return t <= DType::bf16; }
// f16 and bf16.
constexpr bool is_half(DType t) { return t == DType::f16 || t == DType::bf16; }
constexpr bool is_integral(DType t) { return t >= DType::i64; }  // boolean included, as a number it is 0 or 1

// "f32", "bf16", ..., "boolean": the names of the enumerators.
std::string to_string(DType t);
std::ostream& operator<<(std::ostream& out, DType t);
// Inverse of to_string; throws Error with the list of names.
DType dtype_from_string(std::string_view name);

// PyTorch's promotion of two tensor dtypes (torch.promote_types): floating wins over integral, wider wins; f16 with
// bf16 gives f32; u8 with a signed type gives the signed type.
DType promote(DType a, DType b);

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, Half>)
    return DType::f16;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<T, bool>)
    return DType::boolean;
  else if constexpr (std::is_same_v<T, uint8_t>)
    return DType::u8;
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 8)
    return DType::i64;
  else {
    static_assert(std::is_integral_v<T> && sizeof(T) == 4 && std::is_signed_v<T>, "no dtype for this C++ type");
    return DType::i32;
  }
}

// Calls f.operator()<T>() with the C++ type of the dtype:  with_type(t, [&]<class T> { ... });
template <class F>
decltype(auto) with_type(DType t, F&& f) {
  switch (t) {
    case DType::f64:
      return f.template operator()<double>();
    case DType::f32:
      return f.template operator()<float>();
    case DType::f16:
      return f.template operator()<Half>();
    case DType::bf16:
      return f.template operator()<BFloat16>();
    case DType::i64:
      return f.template operator()<int64_t>();
    case DType::i32:
      return f.template operator()<int32_t>();
    case DType::u8:
      return f.template operator()<uint8_t>();
    case DType::boolean:
      return f.template operator()<bool>();
  }
  __builtin_unreachable();
}

// The same for floating dtypes only; throws "op: expects a floating dtype, got i32".
template <class F>
decltype(auto) with_floating(std::string_view op, DType t, F&& f) {
  switch (t) {
    case DType::f64:
      return f.template operator()<double>();
    case DType::f32:
      return f.template operator()<float>();
    case DType::f16:
      return f.template operator()<Half>();
    case DType::bf16:
      return f.template operator()<BFloat16>();
    default:
      fail(op, ": expects a floating dtype, got ", to_string(t));
  }
}

// The type that arithmetic on T is done in: float for the 16-bit types, T otherwise.
template <class T>
using compute_type = std::conditional_t<std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>, float, T>;

// The type that sums over T accumulate in: f32 for the 16-bit types, i64 for integers, T otherwise.
template <class T>
using accumulate_type = std::conditional_t<std::is_integral_v<T>, int64_t, compute_type<T>>;

}  // namespace loom
