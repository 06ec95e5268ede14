#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/elementwise.h>

namespace loom {

namespace {

using Kind = ElementwiseKind;

template <Unary op, class C>
struct OfOne {
  C p, q;
  __device__ auto operator()(C x) const {
    using enum Unary;
    if constexpr (std::is_integral_v<C> && (op == floor || op == ceil || op == round || op == trunc))
      return x;
    else if constexpr (std::is_integral_v<C> && (op == neg || op == square))  // wraps
      return static_cast<C>(elementwise::UnaryFunction<op>{}(static_cast<uint64_t>(x), uint64_t{0}, uint64_t{0}));
    else
      return elementwise::UnaryFunction<op>{}(x, p, q);
  }
};

// The parameters of integral ops are whole numbers, or infinite where they limit nothing.
template <class C>
C parameter(double value) {
  if constexpr (std::is_integral_v<C>)
    return value <= -0x1p63  ? std::numeric_limits<C>::min()
           : value >= 0x1p63 ? std::numeric_limits<C>::max()
                             : static_cast<C>(value);
  else
    return static_cast<C>(value);
}

template <Unary op, Kind kind>
void run(const View& y, const View& x, double p, double q) {
  cuda::elementwise<1, kind == Kind::real>(name_of(op), y, {&x}, [&]<class C> {
    return OfOne<op, C>{parameter<C>(p), parameter<C>(q)};
  });
}

}  // namespace

void Cuda::unary(Unary op, const View& y, const View& x, double p, double q) {
  switch (op) {
#define UNARY(name, kind, ...) \
  case Unary::name:            \
    return run<Unary::name, Kind::kind>(y, x, p, q);
#define UNARY_P(name, p_default, q_default, kind, ...) UNARY(name, kind)
#define STEP(name, ...) UNARY(name, numeric)
#define PREDICATE(name, ...) UNARY(name, predicate)
#include <loom/accelerators/elementwise.def>
  }
}

}  // namespace loom
