// The arithmetic of reductions, shared by those that are one pass and logsumexp, which is two.
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include <loom/accelerators/accelerator.h>

namespace loom::cpu {

template <Reduce op, class T>
constexpr T neutral() {
  using Limits = std::numeric_limits<T>;
  if constexpr (op == Reduce::prod || op == Reduce::all)
    return T(1);
  else if constexpr (op == Reduce::max)
    return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  else if constexpr (op == Reduce::min)
    return Limits::has_infinity ? Limits::infinity() : Limits::max();
  else
    return T(0);
}

// T: a number or a vector of them. Sums and products of integers wrap.
template <Reduce op, class T>
[[gnu::always_inline]] inline T combine(T a, T b) {
  if constexpr (op == Reduce::max)
    return ((b > a) | (b != b)) ? b : a;  // no branch between: vectors
  else if constexpr (op == Reduce::min)
    return ((b < a) | (b != b)) ? b : a;
  else if constexpr (op == Reduce::all)
    return static_cast<T>(a & b);
  else if constexpr (op == Reduce::any)
    return static_cast<T>(a | b);
  else if constexpr (std::is_integral_v<T>) {
    const auto u = static_cast<uint64_t>(a), v = static_cast<uint64_t>(b);
    return static_cast<T>(op == Reduce::prod ? u * v : u + v);
  } else {
    return op == Reduce::prod ? a * b : a + b;
  }
}

template <Reduce op, class T>
[[gnu::always_inline]] inline T lift(T x) {
  if constexpr (op == Reduce::sum_of_squares)
    return x * x;
  else
    return x;
}

// One block of a row: independent lanes hide the latency of addition, and make the sum a shallow tree.
template <Reduce op, class T>
T reduce_block(const T* x, int64_t n) {
  constexpr int64_t lanes = 128 / sizeof(T) < 32 ? 128 / sizeof(T) : 32;
  T sum[lanes];
  for (int64_t l = 0; l < lanes; ++l) sum[l] = neutral<op, T>();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t l = 0; l < lanes; ++l) sum[l] = combine<op, T>(sum[l], lift<op, T>(x[i + l]));
  for (int64_t l = 0; i + l < n; ++l) sum[l] = combine<op, T>(sum[l], lift<op, T>(x[i + l]));
  for (int64_t width = lanes / 2; width > 0; width /= 2)
    for (int64_t l = 0; l < width; ++l) sum[l] = combine<op, T>(sum[l], sum[l + width]);
  return sum[0];
}

// The dimensions of x (and y) that stay, or those that go.
inline View part_of(const View& v, const View& x, const View& y, bool reduced) {
  View part{v.data, v.dtype, v.device, {}, {}};
  for (int i = 0; i < x.rank(); ++i) {
    if ((x.shape[i] != y.shape[i]) != reduced) continue;
    part.shape.push_back(x.shape[i]);
    part.strides.push_back(v.strides[i]);
  }
  return part;
}

// y = log(sum(exp(x))) over the dims where y has extent 1.
void logsumexp(const View& y, const View& x);

}  // namespace loom::cpu
