// Elements in device code: 16 bytes at a time, or of a dtype that is known only when the kernel runs.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include <loom/accelerators/dtype.h>

namespace loom::cuda {

// As many elements as a thread moves at once.
template <class T>
struct alignas(16) Pack {
  static constexpr int width = 16 / static_cast<int>(sizeof(T));
  T items[width];
};

inline bool is_aligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

// Arithmetic is done in f32, f64 or i64, which hold the results of all dtypes of their kind.
enum class Compute : uint8_t { f32, f64, i64 };
inline Compute compute_of(DType t) {
  return t == DType::f64 ? Compute::f64 : is_floating(t) ? Compute::f32 : Compute::i64;
}
template <class F>
decltype(auto) with_compute(Compute c, F&& f) {
  switch (c) {
    case Compute::f32:
      return f.template operator()<float>();
    case Compute::f64:
      return f.template operator()<double>();
    case Compute::i64:
      return f.template operator()<int64_t>();
  }
  __builtin_unreachable();
}

// Calls f.operator()<T>() with an unsigned type of the dtype's size: for elements that are only moved.
template <class F>
decltype(auto) with_bits(DType t, F&& f) {
  switch (item_size(t)) {
    case 8:
      return f.template operator()<uint64_t>();
    case 4:
      return f.template operator()<uint32_t>();
    case 2:
      return f.template operator()<uint16_t>();
    default:
      return f.template operator()<uint8_t>();
  }
}

#if defined(__CUDACC__)
// As on the CPU: to boolean whether it is not 0; from floating to integral truncated, the nearest number where it is
// out of range, 0 for NaN; to u8 by way of i32, from which it wraps.
template <class To, class From>
__device__ __forceinline__ To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, Half> || std::is_same_v<From, BFloat16>) {
    return convert<To>(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, BFloat16>) {
    return To(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, bool>) {
    return x != From(0);
  } else if constexpr (std::is_same_v<To, uint8_t> && std::is_floating_point_v<From>) {
    return static_cast<uint8_t>(convert<int32_t>(x));
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    if (x != x) return To(0);
    constexpr From low = static_cast<From>(std::numeric_limits<To>::min());
    constexpr From past = static_cast<From>(std::numeric_limits<To>::max() / 2 + 1) * From(2);
    return x <= low ? std::numeric_limits<To>::min() : x >= past ? std::numeric_limits<To>::max() : static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

template <class C>
__device__ __forceinline__ C load(const char* address, DType t) {
  switch (t) {
    case DType::f64:
      return convert<C>(*reinterpret_cast<const double*>(address));
    case DType::f32:
      return convert<C>(*reinterpret_cast<const float*>(address));
    case DType::f16:
      return convert<C>(*reinterpret_cast<const Half*>(address));
    case DType::bf16:
      return convert<C>(*reinterpret_cast<const BFloat16*>(address));
    case DType::i64:
      return convert<C>(*reinterpret_cast<const int64_t*>(address));
    case DType::i32:
      return convert<C>(*reinterpret_cast<const int32_t*>(address));
    case DType::u8:
    case DType::boolean:
      return convert<C>(*reinterpret_cast<const uint8_t*>(address));
  }
  return C();
}

template <class C>
__device__ __forceinline__ void store(char* address, DType t, C value) {
  switch (t) {
    case DType::f64:
      *reinterpret_cast<double*>(address) = convert<double>(value);
      return;
    case DType::f32:
      *reinterpret_cast<float*>(address) = convert<float>(value);
      return;
    case DType::f16:
      *reinterpret_cast<Half*>(address) = convert<Half>(value);
      return;
    case DType::bf16:
      *reinterpret_cast<BFloat16*>(address) = convert<BFloat16>(value);
      return;
    case DType::i64:
      *reinterpret_cast<int64_t*>(address) = convert<int64_t>(value);
      return;
    case DType::i32:
      *reinterpret_cast<int32_t*>(address) = convert<int32_t>(value);
      return;
    case DType::u8:
      *reinterpret_cast<uint8_t*>(address) = convert<uint8_t>(value);
      return;
    case DType::boolean:
      *reinterpret_cast<bool*>(address) = convert<bool>(value);
      return;
  }
}
#endif

}  // namespace loom::cuda
