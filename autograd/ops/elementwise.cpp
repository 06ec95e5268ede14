// Wraps every row of accelerators/elementwise.def in an op: the forward kernel and the row's derivative.
#include <loom/autograd/ops/elementwise.h>

#include <limits>
#include <numbers>

#include <loom/autograd/compose.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/autograd/recompute.h>
#include <loom/tensor/raw.h>

namespace loom {

// Derivatives too long for a column of the table.
namespace rules {
namespace {

using autograd::wide;

constexpr double inf = std::numeric_limits<double>::infinity();

// g times the second derivatives of silu, gelu and gelu_tanh. Those of the latter two vanish far from 0, where the
// terms of their products overflow; so x stays near.
Tensor silu_bend(const Tensor& g, const Tensor& x) {
  const Tensor s = sigmoid(x);
  return g * s * (1.0 - s) * (x * (1.0 - s * 2.0) + 2.0);
}

Tensor gelu_bend(const Tensor& g, const Tensor& given) {
  const Tensor x = clamp(given, -40.0, 40.0);
  const double density_at_0 = 0.39894228040143267794;  // 1 / sqrt(2 pi)
  return g * exp(x * x * -0.5) * (2.0 - x * x) * density_at_0;
}

Tensor gelu_tanh_bend(const Tensor& g, const Tensor& given) {
  const Tensor x = clamp(given, -15.0, 15.0);
  const double k = 0.79788456080286535588, c = 0.044715;  // sqrt(2 / pi)
  const Tensor t = tanh((x + x * x * x * c) * k), slope = (x * x * (3 * c) + 1.0) * k;
  return g * (1.0 - t * t) * (slope + x * (x * (3 * c * k) - t * slope * slope));
}

// x * tanh(softplus(x)) (Misra 2019).
Tensor mish(const Tensor& g, const Tensor& x) {
  const Tensor t = tanh(softplus(x));
  return g * (t + x * sigmoid(x) * (1.0 - t * t));
}

Tensor hardswish(const Tensor& g, const Tensor& x) {
  return where(x >= 3.0, g, where(x <= -3.0, 0.0, g * (x * 2.0 + 3.0) * (1.0 / 6.0)));
}

// Flat at the ends too.
Tensor clamp(const Tensor& g, const Tensor& x, double low, double high) {
  if (low == -inf && high == inf) return g;
  if (low == -inf) return where(x < high, g, 0.0);
  return where(high == inf ? x > low : logical_and(x > low, x < high), g, 0.0);
}

Tensor cube(const Tensor& y) { return wide(y) * wide(y) * wide(y); }

// In the branch that is not taken exp(x) may overflow, and the second derivative would be 0 * inf.
Tensor below_0(const Tensor& x) { return where(x > 0.0, 0.0, x); }

Tensor selu(const Tensor& g, const Tensor& x) {
  const double scale = 1.0507009873554804934, alpha = 1.6732632423543772848;  // Klambauer et al. 2017
  return where(x > 0.0, g * scale, g * (scale * alpha) * exp(below_0(x)));
}

Tensor elu(const Tensor& g, const Tensor& x, double alpha) { return where(x > 0.0, g, g * alpha * exp(below_0(x))); }

Tensor celu(const Tensor& g, const Tensor& x, double alpha) { return where(x > 0.0, g, g * exp(below_0(x) / alpha)); }

// Where a is 0 the function is 0 whatever b.
Tensor xlogy_a(const Tensor& g, const Tensor& a, const Tensor& b) {
  return where(logical_and(a == 0.0, b <= 0.0), 0.0, g * log(b));
}

Tensor pow_scalar(const Tensor& g, const Tensor& x, double p) {
  return p == 0 ? zeros_like(g) : g * (p * loom::pow_scalar(wide(x), p - 1));
}

Tensor pow_base(const Tensor& g, const Tensor& a, const Tensor& b) {
  return where(b == 0.0, 0.0, g * (b * pow(wide(a), b - 1.0)));  // x^0 is flat, also at 0
}

Tensor pow_exponent(const Tensor& g, const Tensor& a, const Tensor& b, const Tensor& y) {
  return where(logical_and(a == 0.0, b >= 0.0), 0.0, g * (wide(y) * log(a)));
}

// g * x / (a^2 + b^2), x one of the two; 0 at the origin.
Tensor atan2_slope(const Tensor& g, const Tensor& a, const Tensor& b, const Tensor& x) {
  const Tensor origin = logical_and(a == 0.0, b == 0.0);
  const Tensor length = hypot(where(origin, 1.0, wide(a)), wide(b));
  return g * (x / length) / length;
}

// The larger (smaller) argument gets the gradient; equal ones share it. Beside NaN nothing is less: both get it.
Tensor pick(const Tensor& g, const Tensor& other, const Tensor& tie) {
  return where(tie, g * 0.5, where(other, 0.0, g));
}

}  // namespace
}  // namespace rules

namespace autograd {
namespace {

// What a binary row keeps for backward; crossed: as ab, but each only where the other's gradient is wanted.
enum class Keeps { none, a, b, ab, by, ay, aby, crossed };
enum class KeepsOne { none, in, out };

template <KeepsOne keeps, class Derivative>
Tensor record_unary(const Op& op, const Tensor& x, Tensor y, const Derivative& derivative) {
  if (!recording(x)) return y;
  if constexpr (keeps == KeepsOne::none)
    return record(op, std::move(y), {x},
                  [derivative](const Tensor& g) { return Grads(derivative(g, Tensor(), Tensor())); });
  else if constexpr (keeps == KeepsOne::in)
    return record(op, std::move(y), {x},
                  [derivative, x = save(x)](const Tensor& g) { return Grads(derivative(g, x(), Tensor())); });
  else
    return record(op, std::move(y), {x},
                  [derivative](const Tensor& g, const Tensor& out) { return Grads(derivative(g, Tensor(), out)); });
}

bool keeps_a(Keeps k, const Tensor& b) {
  return k == Keeps::a || k == Keeps::ab || k == Keeps::ay || k == Keeps::aby ||
         (k == Keeps::crossed && autograd::as_at_forward(requires_grad(b)));
}
bool keeps_b(Keeps k, const Tensor& a) {
  return k == Keeps::b || k == Keeps::ab || k == Keeps::by || k == Keeps::aby ||
         (k == Keeps::crossed && autograd::as_at_forward(requires_grad(a)));
}
constexpr bool keeps_y(Keeps k) { return k == Keeps::by || k == Keeps::ay || k == Keeps::aby; }

template <Keeps keeps, class Da, class Db>
Tensor record_binary(const Op& op, const Tensor& a, const Tensor& b, Tensor y, const Da& da, const Db& db) {
  if (!recording(a, b)) return y;
  const auto gradients = [da, db](const Tensor& g, const Saved& a, const Saved& b, const Tensor& out,
                                  const Needs& needs) {
    const Tensor &left = a(), &right = b();
    return Grads(needs[0] ? da(g, left, right, out) : Tensor(), needs[1] ? db(g, left, right, out) : Tensor());
  };
  Saved kept_a = keeps_a(keeps, b) ? save(a) : Saved(), kept_b = keeps_b(keeps, a) ? save(b) : Saved();
  if constexpr (keeps_y(keeps))
    return record(op, std::move(y), {a, b},
                  [gradients, a = std::move(kept_a), b = std::move(kept_b)](
                      const Tensor& g, const Tensor& out, const Needs& n) { return gradients(g, a, b, out, n); });
  else
    return record(op, std::move(y), {a, b},
                  [gradients, a = std::move(kept_a), b = std::move(kept_b)](const Tensor& g, const Needs& n) {
                    return gradients(g, a, b, Tensor(), n);
                  });
}

}  // namespace
}  // namespace autograd

using namespace autograd;

#define LOOM_UNARY_RULE(derivative)                                                                           \
  [=]([[maybe_unused]] const Tensor& g, [[maybe_unused]] const Tensor& x, [[maybe_unused]] const Tensor& y) { \
    return Tensor(derivative);                                                                                \
  }
#define LOOM_BINARY_RULE(derivative)                                                                       \
  []([[maybe_unused]] const Tensor& g, [[maybe_unused]] const Tensor& a, [[maybe_unused]] const Tensor& b, \
     [[maybe_unused]] const Tensor& y) { return Tensor(derivative); }

#define UNARY(name, kind, f, derivative, keeps, lo, hi, cast)                                                    \
  Tensor name(const Tensor& x_) {                                                                                \
    const auto [x] = enter(ops::name, x_);                                                                       \
    return record_unary<KeepsOne::keeps>(ops::name, x, raw::unary(Unary::name, x), LOOM_UNARY_RULE(derivative)); \
  }
#define UNARY_P(name, p_default, q_default, kind, f, derivative, keeps, lo, hi, cast)                                  \
  Tensor name(const Tensor& x_, double p, [[maybe_unused]] double q) {                                                 \
    const auto [x] = enter(ops::name, x_);                                                                             \
    return record_unary<KeepsOne::keeps>(ops::name, x, raw::unary(Unary::name, x, p, q), LOOM_UNARY_RULE(derivative)); \
  }
#define STEP(name, ...)                                                                                            \
  Tensor name(const Tensor& x_) {                                                                                  \
    const auto [x] = enter(ops::name, x_);                                                                         \
    return record_unary<KeepsOne::none>(ops::name, x, raw::unary(Unary::name, x), LOOM_UNARY_RULE(zeros_like(g))); \
  }
#define PREDICATE(name, ...)               \
  Tensor name(const Tensor& x_) {          \
    const auto [x] = enter(ops::name, x_); \
    return raw::unary(Unary::name, x);     \
  }
#define BINARY(name, kind, f, da, db, keeps, lo, hi, cast)                                                     \
  Tensor name(const Tensor& a_, const Tensor& b_) {                                                            \
    const auto [a, b] = enter(ops::name, a_, b_);                                                              \
    return record_binary<Keeps::keeps>(ops::name, a, b, raw::binary(Binary::name, a, b), LOOM_BINARY_RULE(da), \
                                       LOOM_BINARY_RULE(db));                                                  \
  }
#define COMPARE(name, ...)                          \
  Tensor name(const Tensor& a_, const Tensor& b_) { \
    const auto [a, b] = enter(ops::name, a_, b_);   \
    return raw::binary(Binary::name, a, b);         \
  }
#define BITWISE(name, ...)                          \
  Tensor name(const Tensor& a_, const Tensor& b_) { \
    const auto [a, b] = enter(ops::name, a_, b_);   \
    return raw::binary(Binary::name, a, b);         \
  }
#include <loom/accelerators/elementwise.def>

Tensor operator-(const Tensor& x) { return neg(x); }

Tensor where(const Tensor& condition_, const Tensor& a_, const Tensor& b_) {
  const auto [condition, a, b] = enter(ops::where, condition_, a_, b_);
  Tensor y = raw::where(condition, a, b);
  return record(ops::where, std::move(y), {a, b}, [condition = save(condition)](const Tensor& g, const Needs& needs) {
    return Grads(needs[0] ? where(condition(), g, 0.0) : Tensor(), needs[1] ? where(condition(), 0.0, g) : Tensor());
  });
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, const Tensor& value) {
  return speaking_as("masked_fill", [&] {
    check(mask.dtype() == DType::boolean, "masked_fill: the mask must be boolean, got ", mask.dtype());
    check(value.dim() == 0, "masked_fill: the value must be a number or 0-dimensional, got shape ", value.shape());
    return where(mask, value.to(x.dtype()), x);
  });
}

Tensor lerp(const Tensor& start, const Tensor& end, const Tensor& weight) {
  return speaking_as("lerp", [&] {
    return in_wide([](const Tensor& from, const Tensor& to, const Tensor& share) { return from + share * (to - from); },
                   start, end, weight);
  });
}

Tensor glu(const Tensor& x, int dim) {
  return speaking_as("glu", [&] {
    const int64_t size = x.size(dim);
    check(size % 2 == 0, "glu: extent ", size, " of dimension ", dim, " must be even");
    return x.narrow(dim, 0, size / 2) * sigmoid(x.narrow(dim, size / 2, size / 2));
  });
}

Tensor prelu(const Tensor& x_, const Tensor& weight_) {
  return compose_wide(ops::prelu, std::tie(x_, weight_), [&](const Tensor& x, const Tensor& weight) {
    raw::check_same_device("prelu", x, weight);
    check(weight.dim() == 1, "prelu: the weight must have 1 dimension, got shape ", weight.shape());
    Tensor w = x.dim() == 0 && weight.numel() == 1 ? reshape(weight, {}) : weight;
    if (weight.numel() != 1) {
      check(x.dim() >= 2 && x.size(1) == weight.numel(), "prelu: ", weight.numel(), " weights for an input of shape ",
            x.shape(), "; expected 1 or the extent of dimension 1");
      Dims shape = Dims::filled(x.dim(), 1);
      shape[1] = weight.numel();
      w = weight.reshape(shape);
    }
    return where(x > 0.0, x, w * x);
  });
}

}  // namespace loom
