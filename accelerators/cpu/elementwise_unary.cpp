#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/staged.h>
#include <loom/accelerators/cpu/vector_erfc.h>
#include <loom/accelerators/cpu/vector_gelu.h>
#include <loom/accelerators/cpu/vector_logistic.h>
#include <loom/accelerators/cpu/vector_pow.h>
#include <loom/accelerators/cpu/vector_table.h>
#include <loom/accelerators/cpu/vector_trig.h>

namespace loom {

namespace {

namespace vm = cpu::vector_math;
using Kind = ElementwiseKind;
using Kernel = void (*)(void* y, const void* x, int64_t n, double p, double q);

// The rows of elementwise.def whose formula calls libm, again with functions that vectorise.
template <Unary op, class T>
[[gnu::always_inline]] inline T in_vectors(T x, [[maybe_unused]] T p, [[maybe_unused]] T q) {
  using enum Unary;
  if constexpr (op == exp)
    return vm::exp(x);
  else if constexpr (op == exp2)
    return vm::exp2(x);
  else if constexpr (op == expm1)
    return vm::expm1(x);
  else if constexpr (op == log)
    return vm::log(x);
  else if constexpr (op == log2)
    return vm::log2(x);
  else if constexpr (op == log10)
    return vm::log10(x);
  else if constexpr (op == log1p)
    return vm::log1p(x);
  else if constexpr (op == sin)
    return vm::sin(x);
  else if constexpr (op == cos)
    return vm::cos(x);
  else if constexpr (op == tan)
    return vm::tan(x);
  else if constexpr (op == asin)
    return vm::asin(x);
  else if constexpr (op == acos)
    return vm::acos(x);
  else if constexpr (op == atan)
    return vm::atan(x);
  else if constexpr (op == sinh)
    return vm::sinh(x);
  else if constexpr (op == cosh)
    return vm::cosh(x);
  else if constexpr (op == tanh)
    return vm::tanh(x);
  else if constexpr (op == asinh)
    return vm::asinh(x);
  else if constexpr (op == acosh)
    return vm::acosh(x);
  else if constexpr (op == atanh)
    return vm::atanh(x);
  else if constexpr (op == erf)
    return vm::erf(x);
  else if constexpr (op == erfc && vm::narrow<T>)
    return vm::erfc_in_float(x);
  else if constexpr (op == erfc)
    return vm::erfc(x);
  else if constexpr (op == sigmoid)
    return vm::sigmoid(x);
  else if constexpr (op == abs)
    return vm::magnitude(x);
  else if constexpr (op == logsigmoid)
    return -vm::softplus(-x);
  else if constexpr (op == silu)
    return vm::silu(x);
  else if constexpr (op == gelu && vm::narrow<T>)
    return vm::gelu(x);
  else if constexpr (op == gelu)
    return T(0.5) * x * (T(1) + vm::erf(x * T(0.70710678118654752440)));
  else if constexpr (op == gelu_tanh)  // (1 + tanh(u)) / 2 = sigmoid(2 u)
    return T(0.5) * x /
           vm::half_logistic(x * cpu::multiply_add(x * x, T(0.0713548162726002527220), T(1.59576912160573071176)));
  else if constexpr (op == mish)
    return vm::mish(x);
  else if constexpr (op == tanhshrink)
    return x - vm::tanh(x);
  else if constexpr (op == selu)
    return T(1.0507009873554804934) * (x > T(0) ? x : T(1.6732632423543772848) * vm::expm1(x));
  else if constexpr (op == elu)
    return x > T(0) ? x : p * vm::expm1(x);
  else if constexpr (op == celu)
    return x > T(0) ? x : p * vm::expm1(x / p);
  else if constexpr (op == softplus)
    return vm::softplus(x, p, q);
  else
    return elementwise::UnaryFunction<op>{}(x, p, q);
}

// |x| above which the formulas of vector_math.h do not hold and libm's are used; infinity: they always hold.
template <class T>
constexpr double limit_of(Unary op) {
  using enum Unary;
  if (op == sin || op == cos || op == tan) return vm::turn_limit<T>;
  if (op == sinh || op == cosh) return vm::hyperbolic_limit<T>;
  if (op == asinh || op == acosh) return vm::square_limit<T>;
  return std::numeric_limits<double>::infinity();
}

constexpr bool rounds(Unary op) {
  using enum Unary;
  return op == floor || op == ceil || op == round || op == trunc;
}

// Integers wrap: negation, squares and magnitudes are done unsigned, where overflow is defined.
template <Unary op, class T>
[[gnu::always_inline]] inline auto apply(T x, T p, T q) {
  if constexpr (std::is_floating_point_v<T>)
    return in_vectors<op, T>(x, p, q);
  else if constexpr (std::is_same_v<T, bool> || (std::is_integral_v<T> && rounds(op)))
    return x;
  else if constexpr (std::is_integral_v<T> && (op == Unary::neg || op == Unary::square))
    return static_cast<T>(elementwise::UnaryFunction<op>{}(static_cast<uint64_t>(x), uint64_t{0}, uint64_t{0}));
  else if constexpr (std::is_integral_v<T> && op == Unary::abs)
    return x < T(0) ? static_cast<T>(uint64_t{0} - static_cast<uint64_t>(x)) : x;
  else
    return elementwise::UnaryFunction<op>{}(x, p, q);
}

// Parameters may lie outside T: clamp's default bounds are infinite.
template <class T>
T parameter(double value) {
  // NOLINTBEGIN(bugprone-branch-clone): one line a rule
  if constexpr (!std::is_integral_v<T>)
    return static_cast<T>(value);
  else if (value <= static_cast<double>(std::numeric_limits<T>::min()))
    return std::numeric_limits<T>::min();
  else if (value >= static_cast<double>(std::numeric_limits<T>::max()))
    return std::numeric_limits<T>::max();
  else
    return static_cast<T>(value);
  // NOLINTEND(bugprone-branch-clone)
}

// Some element lies beyond the limit.
template <class T>
bool any_above(const T* x, int64_t n, T limit) {
  vm::Bits<T> above = 0;  // as wide as T: the loop is one of vectors
  for (int64_t i = 0; i < n; ++i) above |= vm::magnitude(x[i]) > limit ? 1 : 0;
  return above != 0;
}

// With libm for the elements beyond the limit.
template <Unary op, class T>
[[gnu::noinline]] void map_beyond(T* y, const T* x, int64_t n, T p, T q, T limit) {
  for (int64_t i = 0; i < n; ++i)
    y[i] = vm::magnitude(x[i]) > limit ? elementwise::UnaryFunction<op>{}(x[i], p, q) : apply<op, T>(x[i], p, q);
}

// x and y may be one array in spite of __restrict: a loop that reads and writes element i only cannot tell.
template <Unary op, class T>
void map(void* __restrict y_data, const void* __restrict x_data, int64_t n, double p_value, double q_value) {
  T* const y = static_cast<T*>(y_data);
  const T* const x = static_cast<const T*>(x_data);
  const T p = parameter<T>(p_value), q = parameter<T>(q_value);
  if constexpr (cpu::has_lookup && vm::narrow<T>) {
    if constexpr (op == Unary::exp) return vm::exp_by_table(y, x, n);
    if constexpr (op == Unary::tanh) return vm::tanh_by_table(y, x, n);
    if constexpr (op == Unary::sigmoid) return vm::sigmoid_by_table(y, x, n);
    if constexpr (op == Unary::silu) return vm::silu_by_table(y, x, n);
    if constexpr (op == Unary::erfc) return vm::erfc_by_table(y, x, n);
    if constexpr (op == Unary::gelu) return vm::gelu_by_table(y, x, n);
    if constexpr (op == Unary::gelu_tanh) return vm::gelu_tanh_by_table(y, x, n);
    if constexpr (op == Unary::pow_scalar)
      if (p != T(3) && vm::magnitude(p) <= vm::by_table_limit) return vm::powers_by_table(y, x, n, p);
  }
  if constexpr (std::is_floating_point_v<T>) {
    if constexpr (op == Unary::exp)
      if (!any_above(x, n, static_cast<T>(vm::exp_limit<T>))) {
        for (int64_t i = 0; i < n; ++i) y[i] = vm::exp_within(x[i]);
        return;
      }
    if constexpr (op == Unary::softplus)
      if (p == T(1)) {  // no division
        for (int64_t i = 0; i < n; ++i) y[i] = vm::softplus(x[i], T(1), q);
        return;
      }
    constexpr double limit = limit_of<T>(op);
    if (limit < vm::infinity<double> && any_above(x, n, static_cast<T>(limit)))
      return map_beyond<op, T>(y, x, n, p, q, static_cast<T>(limit));
    if constexpr (op == Unary::pow_scalar && vm::narrow<T>)
      if (p != T(3)) return vm::powers(y, x, n, [p](int64_t) { return p; });
  }
  for (int64_t i = 0; i < n; ++i) y[i] = apply<op, T>(x[i], p, q);
}

template <Unary op, class T>
void test(void* __restrict y_data, const void* __restrict x_data, int64_t n, double, double) {
  bool* const y = static_cast<bool*>(y_data);
  const T* const x = static_cast<const T*>(x_data);
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (op == Unary::logical_not)
      y[i] = x[i] == T(0);
    else if constexpr (std::is_integral_v<T>)
      y[i] = op == Unary::isfinite;
    else
      y[i] = elementwise::UnaryFunction<op>{}(x[i], T(0), T(0));
  }
}

// Of the numeric ops, those that leave a boolean what it is.
constexpr bool takes_boolean(Unary op) {
  using enum Unary;
  return rounds(op) || op == sign || op == abs || op == square;
}

// Null: there is no such kernel.
template <Unary op, Kind kind, class T>
constexpr Kernel kernel() {
  // NOLINTBEGIN(bugprone-branch-clone): one line a rule
  if constexpr (kind == Kind::predicate)
    return test<op, T>;
  else if constexpr (std::is_floating_point_v<T>)
    return map<op, T>;
  else if constexpr (kind == Kind::real || (std::is_same_v<T, bool> && !takes_boolean(op)))
    return nullptr;
  else
    return map<op, T>;
  // NOLINTEND(bugprone-branch-clone)
}

template <class T>
constexpr std::array kernels = {
#define UNARY(name, kind, ...) kernel<Unary::name, Kind::kind, T>(),
#define UNARY_P(name, p, q, kind, ...) kernel<Unary::name, Kind::kind, T>(),
#define STEP(name, ...) kernel<Unary::name, Kind::numeric, T>(),
#define PREDICATE(name, ...) kernel<Unary::name, Kind::predicate, T>(),
#include <loom/accelerators/elementwise.def>
};

Kernel find_kernel(Unary op, DType dtype) {
  return cpu::with_compute_type(dtype, [&]<class T> { return kernels<T>[static_cast<size_t>(op)]; });
}

// relu of bf16 by their bits: those of numbers below zero, -inf among them, follow each other.
void relu_bf16(void* __restrict y_data, const void* __restrict x_data, int64_t n) {
  uint16_t* const y = static_cast<uint16_t*>(y_data);
  const uint16_t* const x = static_cast<const uint16_t*>(x_data);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<uint16_t>(x[i] - 0x8001u) < 0x7f80u ? uint16_t{0} : x[i];
}

}  // namespace

void Cpu::unary(Unary op, const View& y, const View& x, double p, double q) {
  if (op == Unary::relu && x.dtype == bf16 && y.dtype == bf16)
    return cpu::staged<2>({&y, &x}, {bf16, bf16}, cpu::grain,
                          [](void* out, const auto& in, int64_t n) { relu_bf16(out, in[0], n); });
  const DType compute = cpu::compute_dtype(x.dtype);
  const Kernel kernel = find_kernel(op, compute);
  if (kernel == nullptr) {
    check(kind_of(op) != Kind::real, name_of(op), ": expects a floating dtype, got ", x.dtype);
    fail(name_of(op), ": not implemented for ", x.dtype, " on cpu");
  }
  const DType result = kind_of(op) == Kind::predicate ? boolean : compute;
  const int64_t grain = kind_of(op) == Kind::real ? cpu::grain / 4 : cpu::grain;
  cpu::staged<2>({&y, &x}, {result, compute}, grain,
                 [=](void* out, const auto& in, int64_t n) { kernel(out, in[0], n, p, q); });
}

}  // namespace loom
