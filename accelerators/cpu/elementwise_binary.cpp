#include <array>
#include <cmath>
#include <limits>

#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/staged.h>
#include <loom/accelerators/cpu/vector_gelu.h>
#include <loom/accelerators/cpu/vector_pow.h>
#include <loom/accelerators/cpu/vector_table.h>
#include <loom/accelerators/cpu/vector_trig.h>

namespace loom {

namespace {

namespace vm = cpu::vector_math;
using Kind = ElementwiseKind;
using Kernel = void (*)(void* y, const void* a, const void* b, int64_t n);

// Integers wrap and never trap: sums and products are done unsigned, and division by -1 (the smallest number by it has
// no result that fits) is a negation.
template <Binary op, class T>
T apply_integral(T a, T b) {
  using enum Binary;
  using Wide = uint64_t;
  using Function = elementwise::BinaryFunction<op>;
  if constexpr (op == add || op == sub || op == mul) {
    return static_cast<T>(Function{}(static_cast<Wide>(a), static_cast<Wide>(b)));
  } else if constexpr (op == pow) {
    return b < T(0) ? elementwise::power(a, b)
                    : static_cast<T>(elementwise::power(static_cast<Wide>(a), static_cast<Wide>(b)));
  } else if constexpr (std::is_signed_v<T> && (op == fmod || op == remainder)) {
    return b == T(-1) ? T(0) : Function{}(a, b);
  } else if constexpr (std::is_signed_v<T> && op == floor_divide) {
    return b == T(-1) ? static_cast<T>(Wide{0} - static_cast<Wide>(a)) : Function{}(a, b);
  } else {
    return Function{}(a, b);
  }
}

// The quotient rounded towards zero and what it leaves, exact while |a / b| < 2^28 (float has 24 bits, double 53).
struct Division {
  double quotient, rest;
};
[[gnu::always_inline]] inline Division divided(float a, float b) {
  const double x = a, y = b, q = std::trunc(x / y), r = x - q * y;
  const double step = r != 0 && (r < 0) != (x < 0) ? ((x < 0) != (y < 0) ? -1.0 : 1.0) : 0.0;  // x / y rounded up
  return {q - step, r + step * y};
}

struct VectorMath {
  template <class T>
  [[gnu::always_inline]] static T exp(T x) {
    return vm::exp(x);
  }
  template <class T>
  [[gnu::always_inline]] static T erf(T x) {
    return vm::erf(x);
  }
  template <class T>
  [[gnu::always_inline]] static T tanh(T x) {
    return vm::tanh(x);
  }
};

// The rows of elementwise.def whose formula calls libm, again with functions that vectorise. f32 only, but for atan2.
template <Binary op, class T>
[[gnu::always_inline]] inline T in_vectors(T a, T b) {
  using enum Binary;
  if constexpr (op == atan2) {
    return vm::atan2(a, b);
  } else if constexpr (op == logaddexp) {
    const T high = a > b ? a : b, low = a > b ? b : a;
    return high + vm::log1p(vm::exp(low - high));
  } else if constexpr (op == xlogy) {
    return a == T(0) && b == b ? T(0) : a * vm::log(b);
  } else if constexpr (op == silu_backward) {
    const T s = vm::sigmoid(b);
    return a * (s * (T(1) + b * (T(1) - s)));
  } else if constexpr (op == gelu_backward && vm::narrow<T>) {
    return a * vm::gelu_slope(b);
  } else if constexpr (op == gelu_tanh_backward && vm::narrow<T>) {
    return a * vm::gelu_tanh_slope(b);
  } else if constexpr (op == gelu_backward) {
    return a * elementwise::gelu_slope<VectorMath>(b);
  } else if constexpr (op == gelu_tanh_backward) {
    return a * elementwise::gelu_tanh_slope<VectorMath>(b);
  } else if constexpr (!vm::narrow<T>) {
    return elementwise::BinaryFunction<op>{}(a, b);
  } else if constexpr (op == hypot) {
    return static_cast<float>(std::sqrt(static_cast<double>(a) * a + static_cast<double>(b) * b));
  } else if constexpr (op == fmod) {
    return vm::with_sign_of(static_cast<float>(divided(a, b).rest), a);
  } else if constexpr (op == remainder) {
    const double r = divided(a, b).rest;
    return r == 0 ? vm::with_sign_of(0.0f, a) : static_cast<float>((r < 0) != (b < 0) ? r + b : r);
  } else if constexpr (op == floor_divide) {
    const Division d = divided(a, b);
    const double q = d.rest != 0 && (d.rest < 0) != (b < 0) ? d.quotient - 1 : d.quotient;
    return q == 0 ? vm::with_sign_of(0.0f, a / b) : static_cast<float>(q);
  } else {
    return elementwise::BinaryFunction<op>{}(a, b);
  }
}

// Whether in_vectors holds for a and b; elsewhere libm's formula is used.
template <Binary op, class T>
[[gnu::always_inline]] inline bool ordinary(T a, T b) {
  using enum Binary;
  [[maybe_unused]] const bool finite = a - a + (b - b) == T(0);
  // NOLINTBEGIN(bugprone-branch-clone): one line a rule
  if constexpr (op == atan2)
    return finite && (a != T(0) || b != T(0));
  else if constexpr (op == logaddexp)
    return finite;
  else if constexpr (!vm::narrow<T>)
    return true;
  else if constexpr (op == hypot)
    return finite;
  else if constexpr (op == fmod || op == remainder || op == floor_divide)
    return finite && vm::magnitude(a) < 0x1p28f * vm::magnitude(b);
  else
    return true;
  // NOLINTEND(bugprone-branch-clone)
}

template <Binary op, class T>
[[gnu::always_inline]] inline auto apply(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return in_vectors<op, T>(a, b);
  else if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
    return apply_integral<op, T>(a, b);
  else
    return elementwise::BinaryFunction<op>{}(a, b);
}

// With libm for the pairs that in_vectors does not hold for.
template <Binary op, class T>
[[gnu::noinline]] void map_odd(T* y, const T* a, const T* b, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    y[i] = ordinary<op, T>(a[i], b[i]) ? apply<op, T>(a[i], b[i]) : elementwise::BinaryFunction<op>{}(a[i], b[i]);
}

// relu_backward: a where b is above zero, or NaN.
template <class T>
void keep_above_zero(T* y, const T* a, const T* b, int64_t n) {
  int64_t i = 0;
  for (; i + cpu::lanes<T> <= n; i += cpu::lanes<T>) {
    const cpu::Vec<T> v = cpu::loaded(cpu::load(a + i));
    cpu::store(y + i, cpu::load(b + i) <= T(0) ? cpu::Vec<T>{} : v);
  }
  for (; i < n; ++i) y[i] = apply<Binary::relu_backward, T>(a[i], b[i]);
}

// The output may be an input in spite of __restrict: a loop that reads and writes element i only cannot tell.
template <Binary op, class T>
void map(void* __restrict y_data, const void* __restrict a_data, const void* __restrict b_data, int64_t n) {
  T* const y = static_cast<T*>(y_data);
  const T* const a = static_cast<const T*>(a_data);
  const T* const b = static_cast<const T*>(b_data);
  if constexpr (std::is_floating_point_v<T>) {
    if constexpr (op == Binary::relu_backward) return keep_above_zero(y, a, b, n);
    if constexpr (op == Binary::pow && vm::narrow<T> && cpu::has_lookup) return vm::powers_by_table(y, a, n, b);
    if constexpr (op == Binary::pow && vm::narrow<T>) return vm::powers(y, a, n, [b](int64_t i) { return b[i]; });
    vm::Bits<T> odd = 0;  // as wide as T: the loop is one of vectors
    for (int64_t i = 0; i < n; ++i) odd |= ordinary<op, T>(a[i], b[i]) ? 0 : 1;
    if (odd != 0) return map_odd<op, T>(y, a, b, n);
  }
  for (int64_t i = 0; i < n; ++i) y[i] = apply<op, T>(a[i], b[i]);
}

template <Binary op, class T>
void compare(void* __restrict y_data, const void* __restrict a_data, const void* __restrict b_data, int64_t n) {
  bool* const y = static_cast<bool*>(y_data);
  const T* const a = static_cast<const T*>(a_data);
  const T* const b = static_cast<const T*>(b_data);
  for (int64_t i = 0; i < n; ++i) y[i] = elementwise::BinaryFunction<op>{}(a[i], b[i]);
}

// Of the numeric ops, those that booleans are closed under (or, and, or, and).
constexpr bool takes_boolean(Binary op) {
  using enum Binary;
  return op == add || op == mul || op == maximum || op == minimum;
}

// Null: there is no such kernel.
template <Binary op, Kind kind, class T>
constexpr Kernel kernel() {
  constexpr bool is_bool = std::is_same_v<T, bool>;
  // NOLINTBEGIN(bugprone-branch-clone): one line a rule
  if constexpr (kind == Kind::predicate)
    return compare<op, T>;
  else if constexpr (kind == Kind::real && std::is_integral_v<T>)
    return nullptr;
  else if constexpr (kind == Kind::bitwise && !std::is_integral_v<T>)
    return nullptr;
  else if constexpr (kind == Kind::numeric && is_bool && !takes_boolean(op))
    return nullptr;
  else
    return map<op, T>;
  // NOLINTEND(bugprone-branch-clone)
}

template <class T>
constexpr std::array kernels = {
#define BINARY(name, kind, ...) kernel<Binary::name, Kind::kind, T>(),
#define COMPARE(name, ...) kernel<Binary::name, Kind::predicate, T>(),
#define BITWISE(name, ...) kernel<Binary::name, Kind::bitwise, T>(),
#include <loom/accelerators/elementwise.def>
};

Kernel find_kernel(Binary op, DType dtype) {
  return cpu::with_compute_type(dtype, [&]<class T> { return kernels<T>[static_cast<size_t>(op)]; });
}

// Cheap arithmetic between two conversions, all in registers: staged in L1, these would be most of the work.
template <Binary op>
void map_bf16(void* __restrict y_data, const void* __restrict a_data, const void* __restrict b_data, int64_t n) {
  BFloat16* const y = static_cast<BFloat16*>(y_data);
  const BFloat16* const a = static_cast<const BFloat16*>(a_data);
  const BFloat16* const b = static_cast<const BFloat16*>(b_data);
  for (int64_t i = 0; i < n; ++i)
    y[i] = BFloat16(elementwise::BinaryFunction<op>{}(static_cast<float>(a[i]), static_cast<float>(b[i])));
}

// Null: there is none for this op.
Kernel find_kernel_bf16(Binary op) {
  return op == Binary::add   ? map_bf16<Binary::add>
         : op == Binary::sub ? map_bf16<Binary::sub>
         : op == Binary::mul ? map_bf16<Binary::mul>
                             : nullptr;
}

// Only the size of an element matters. Both values are read: `?:` would load one under a mask, after the other and the
// condition.
template <class Bits>
void select(void* __restrict y_data, const void* __restrict condition, const void* __restrict a_data,
            const void* __restrict b_data, int64_t n) {
  Bits* const y = static_cast<Bits*>(y_data);
  const uint8_t* const c = static_cast<const uint8_t*>(condition);
  const Bits* const a = static_cast<const Bits*>(a_data);
  const Bits* const b = static_cast<const Bits*>(b_data);
  for (int64_t i = 0; i < n; ++i) {
    const Bits mask = static_cast<Bits>(Bits{0} - static_cast<Bits>(c[i] != 0));
    y[i] = static_cast<Bits>(((a[i] ^ b[i]) & mask) ^ b[i]);
  }
}

}  // namespace

void Cpu::binary(Binary op, const View& y, const View& a, const View& b) {
  const bool all_bf16 = a.dtype == bf16 && b.dtype == bf16 && y.dtype == bf16;
  if (const Kernel direct = all_bf16 ? find_kernel_bf16(op) : nullptr; direct != nullptr)
    return cpu::staged<3>({&y, &a, &b}, {bf16, bf16, bf16}, cpu::grain,
                          [=](void* out, const auto& in, int64_t n) { direct(out, in[0], in[1], n); });
  const DType compute = cpu::compute_dtype(a.dtype);
  const Kernel kernel = find_kernel(op, compute);
  if (kernel == nullptr) {
    check(kind_of(op) != Kind::real, name_of(op), ": expects a floating dtype, got ", a.dtype);
    fail(name_of(op), ": not implemented for ", a.dtype, " on cpu");
  }
  const DType result = kind_of(op) == Kind::predicate ? boolean : compute;
  cpu::staged<3>({&y, &a, &b}, {result, compute, compute}, cpu::grain,
                 [=](void* out, const auto& in, int64_t n) { kernel(out, in[0], in[1], n); });
}

void Cpu::where(const View& y, const View& condition, const View& a, const View& b) {
  const size_t item = item_size(y.dtype);
  const auto kernel = item == 1   ? select<uint8_t>
                      : item == 2 ? select<uint16_t>
                      : item == 4 ? select<uint32_t>
                                  : select<uint64_t>;
  cpu::staged<4>({&y, &condition, &a, &b}, {y.dtype, boolean, y.dtype, y.dtype}, cpu::grain,
                 [=](void* out, const auto& in, int64_t n) { kernel(out, in[0], in[1], in[2], n); });
}

}  // namespace loom
