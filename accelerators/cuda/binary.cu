#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/elementwise.h>

namespace loom {

namespace {

using Kind = ElementwiseKind;

// Integers wrap: sums and products are done unsigned, and division by -1 is a negation (as on the CPU).
template <Binary op, class C>
struct OfTwo {
  __device__ auto operator()(C a, C b) const {
    using enum Binary;
    using Function = elementwise::BinaryFunction<op>;
    if constexpr (!std::is_integral_v<C>)
      return Function{}(a, b);
    else if constexpr (op == add || op == sub || op == mul)
      return static_cast<C>(Function{}(static_cast<uint64_t>(a), static_cast<uint64_t>(b)));
    else if constexpr (op == pow)
      return b < 0 ? elementwise::power(a, b)
                   : static_cast<C>(elementwise::power(static_cast<uint64_t>(a), static_cast<uint64_t>(b)));
    else if constexpr (op == fmod || op == remainder)
      return b == -1 ? C(0) : Function{}(a, b);
    else if constexpr (op == floor_divide)
      return b == -1 ? static_cast<C>(uint64_t{0} - static_cast<uint64_t>(a)) : Function{}(a, b);
    else
      return Function{}(a, b);
  }
};

template <Binary op>
struct OfTypes {
  template <class C>
  OfTwo<op, C> operator()() const {
    return {};
  }
};

template <Binary op, Kind kind>
void run(const View& y, const View& a, const View& b) {
  if constexpr (kind == Kind::bitwise)
    cuda::run_any<int64_t, 2>(name_of(op), y, {&a, &b}, OfTwo<op, int64_t>{});
  else
    cuda::elementwise<2, kind == Kind::real>(name_of(op), y, {&a, &b}, OfTypes<op>{});
}

}  // namespace

void Cuda::binary(Binary op, const View& y, const View& a, const View& b) {
  switch (op) {
#define BINARY(name, kind, ...) \
  case Binary::name:            \
    return run<Binary::name, Kind::kind>(y, a, b);
#define COMPARE(name, ...) BINARY(name, predicate)
#define BITWISE(name, ...) BINARY(name, bitwise)
#include <loom/accelerators/elementwise.def>
  }
}

}  // namespace loom
