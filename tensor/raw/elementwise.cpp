// Elementwise operations: promotion, broadcasting and what is refused, then one kernel.
#include <cmath>
#include <limits>

#include <loom/tensor/context.h>
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

// Whether the integral dtype holds `value` exactly.
bool holds(DType dtype, double value) {
  if (value != std::floor(value)) return false;
  return with_type(dtype, [&]<class T> {
    if constexpr (!std::is_integral_v<T>)
      return true;
    else
      return value >= static_cast<double>(std::numeric_limits<T>::min()) &&
             value <= static_cast<double>(std::numeric_limits<T>::max());
  });
}

// Bounds beyond the range of an integral dtype do as well as its ends.
double saturated(DType dtype, double value) {
  return with_type(dtype, [&]<class T> {
    if constexpr (!std::is_integral_v<T>)
      return value;
    else {
      // The largest double that fits: 2^63 - 1 itself is none.
      constexpr double low = static_cast<double>(std::numeric_limits<T>::min());
      constexpr double high =
          sizeof(T) == 8 ? 0x1.fffffffffffffp62 : static_cast<double>(std::numeric_limits<T>::max());
      return value < low ? low : value > high ? high : value;
    }
  });
}

struct UnaryPlan {
  Unary op;
  DType dtype;  // computed in
  DType result;
  bool identity = false;
  double p, q;
};

// On booleans arithmetic means nothing, but for a few ops that PyTorch runs as i64 or leaves alone.
DType numeric_dtype_of_boolean(Unary op) {
  check(op == Unary::square || op == Unary::clamp || op == Unary::sign, name_of(op),
        ": not defined for boolean tensors; use logical_not for the inverse of a mask, or convert with .to(dtype)");
  return op == Unary::sign ? DType::boolean : DType::i64;
}

bool takes_bounds(Unary op) { return op == Unary::clamp || op == Unary::hardtanh || op == Unary::threshold; }

bool rounds(Unary op) { return op == Unary::floor || op == Unary::ceil || op == Unary::round || op == Unary::trunc; }

// Powers that are another op, which costs a hundredth.
Unary power_as(double exponent) {
  return exponent == 2      ? Unary::square
         : exponent == 0.5  ? Unary::sqrt
         : exponent == -0.5 ? Unary::rsqrt
         : exponent == -1   ? Unary::reciprocal
                            : Unary::pow_scalar;
}

UnaryPlan plan(Unary op, DType x, double p, double q) {
  const ElementwiseKind kind = kind_of(op);
  UnaryPlan out{.op = op, .dtype = x, .result = x, .p = p, .q = q};
  if (kind == ElementwiseKind::real && is_integral(x)) out.dtype = context().default_dtype;
  if (op == Unary::pow_scalar) {
    out.op = power_as(p);
    out.identity = p == 1 && is_floating(x);
  }
  if (kind == ElementwiseKind::numeric && is_integral(x)) {
    if (x == DType::boolean) out.dtype = numeric_dtype_of_boolean(op);
    out.identity = rounds(op) || out.dtype == DType::boolean;
    if (takes_bounds(op)) {
      const bool whole = (std::isinf(p) || p == std::floor(p)) && (std::isinf(q) || q == std::floor(q));
      if (whole) {
        out.p = saturated(out.dtype, p);
        out.q = saturated(out.dtype, q);
      } else {
        out.dtype = context().default_dtype;
      }
    }
  }
  if (op == Unary::clamp && out.p > out.q) out.p = out.q;  // as PyTorch: the upper bound wins
  out.result = kind == ElementwiseKind::predicate ? DType::boolean : out.dtype;
  return out;
}

struct BinaryPlan {
  Binary op;
  DType dtype;  // computed in
  DType result;
};

Binary boolean_form(Binary op) {
  switch (op) {
    case Binary::add:
    case Binary::maximum:
      return Binary::bitwise_or;
    case Binary::mul:
    case Binary::minimum:
      return Binary::bitwise_and;
    default:
      fail(name_of(op), ": not defined for boolean tensors; convert one with .to(dtype)");
  }
}

// A number that the tensors' dtype cannot hold is compared as what it is.
DType compared_dtype(DType common, const Tensor& a, const Tensor& b) {
  if (is_floating(common)) return common;
  for (const Tensor* x : {&a, &b})
    if (x->body().wrapped_number && !holds(common, number_at(*x))) return DType::i64;
  return common;
}

BinaryPlan plan(Binary op, const Tensor& a, const Tensor& b) {
  const DType common = result_type(a, b);
  switch (kind_of(op)) {
    case ElementwiseKind::predicate:
      return {op, compared_dtype(common, a, b), DType::boolean};
    case ElementwiseKind::bitwise:
      check(is_integral(common), name_of(op), ": expects integral or boolean dtypes, got ", a.dtype(), " and ",
            b.dtype());
      return {op, common, common};
    case ElementwiseKind::real: {
      const DType dtype = is_floating(common) ? common : context().default_dtype;
      return {op, dtype, dtype};
    }
    case ElementwiseKind::numeric:
      break;
  }
  if (is_integral(common)) {
    check(op != Binary::sub || (a.dtype() != DType::boolean && b.dtype() != DType::boolean),
          "sub: not defined for boolean tensors; use logical_xor, or logical_not for the inverse of a mask");
    check(op != Binary::pow || !b.body().wrapped_number || number_at(b) >= 0,
          "pow: integers to negative integer powers are not allowed; convert the base with .to(f32)");
    if (common == DType::boolean) return {boolean_form(op), common, common};
  }
  return {op, common, common};
}

// Integers have no infinity to give. Elsewhere than on the host a look at the values waits: there the kernel gives 0.
void check_divisor(Binary op, const View& b) {
  if (op != Binary::floor_divide && op != Binary::remainder && op != Binary::fmod) return;
  if (!is_integral(b.dtype) || b.device.kind != Device::cpu) return;
  bool nonzero = true;
  accelerator(b.device).reduce(Reduce::all, view_over(&nonzero, DType::boolean, Dims::filled(b.rank(), 1)), b);
  check(nonzero, name_of(op), ": division of integers by zero");
}

void run(const BinaryPlan& plan, const View& y, const Tensor& a, const Tensor& b) {
  Operand left(a, plan.dtype, y.device), right(b, plan.dtype, y.device);
  check_divisor(plan.op, right.view());
  accelerator(y.device).binary(plan.op, y, left.broadcast_to(y.shape), right.broadcast_to(y.shape));
}

// What operands mostly are: floating, of one dtype and shape, dense, on the host, so that nothing is promoted,
// broadcast or walked over. Their number of elements; 0: they are not, or the op is none that stays among such.
int64_t alike(Binary op, const Tensor::Body& a, const Tensor::Body& b) {
  if (a.dtype != b.dtype || !is_floating(a.dtype) || a.wrapped_number || b.wrapped_number) return 0;
  if (a.storage->device() != Device() || b.storage->device() != Device() || !(a.shape == b.shape)) return 0;
  const ElementwiseKind kind = kind_of(op);
  if (kind != ElementwiseKind::numeric && kind != ElementwiseKind::real) return 0;
  const int64_t count = dense_count(a);
  return dense_count(b) == count ? count : 0;
}

View as_row(const Tensor::Body& x, int64_t count) { return {start_of(x), x.dtype, Device(), {count}, {1}}; }

}  // namespace

Tensor unary(Unary op, const Tensor& x, double p, double q) {
  const UnaryPlan plan = raw::plan(op, x.dtype(), p, q);
  if (plan.identity) return clone(x);
  const Tensor::Body& from = x.body();
  if (from.storage->device() == Device() && plan.dtype == from.dtype && plan.result == from.dtype)
    if (const int64_t count = dense_count(from); count > 0) {
      Tensor y = uninitialized_as(from, count);
      accelerator(Device()).unary(plan.op, as_row(y.body(), count), as_row(from, count), plan.p, plan.q);
      return y;
    }
  Tensor y = uninitialized_like(name_of(op), {&x}, x.shape(), plan.result);
  if (y.numel() == 0) return y;
  const Operand input(x, plan.dtype, x.device());
  accelerator(x.device()).unary(plan.op, y, input.view(), plan.p, plan.q);
  return y;
}

Tensor binary(Binary op, const Tensor& a, const Tensor& b) {
  const Tensor::Body &left = a.body(), &right = b.body();
  if (const int64_t count = alike(op, left, right); count > 0) {
    Tensor y = uninitialized_as(left, count);
    accelerator(Device()).binary(op, as_row(y.body(), count), as_row(left, count), as_row(right, count));
    return y;
  }
  const BinaryPlan plan = raw::plan(op, a, b);
  const Device device = common_device(name_of(op), a, b);
  const Dims shape = broadcast_shapes(name_of(op), a.shape(), b.shape());
  const bool image = (is_channels_last(a) && a.shape() == shape) || (is_channels_last(b) && b.shape() == shape);
  Tensor y = image ? uninitialized_image(name_of(op), shape, plan.result, device)
                   : uninitialized(name_of(op), shape, plan.result, device);
  if (y.numel() > 0) run(plan, y, a, b);
  return y;
}

void unary_into(Unary op, const Tensor& x, double p, double q) {
  const UnaryPlan plan = raw::plan(op, x.dtype(), p, q);
  const std::string name = std::string(name_of(op)) + "_";
  check_writable(name, x);
  check_storable(name, plan.result, x);
  x.storage()->bump_version();
  if (x.numel() == 0 || plan.identity) return;
  if (plan.dtype == x.dtype() && plan.result == x.dtype())
    accelerator(x.device()).unary(plan.op, x, x, plan.p, plan.q);
  else
    accelerator(x.device()).copy(x, unary(op, x, p, q));
}

void binary_into(Binary op, const Tensor& a, const Tensor& b) {
  const Tensor::Body &to = a.body(), &from = b.body();
  if (const int64_t count = alike(op, to, from);
      count > 0 && (to.storage != from.storage || start_of(to) == start_of(from))) {
    to.storage->bump_version();
    const View row = as_row(to, count);
    return accelerator(Device()).binary(op, row, row, as_row(from, count));
  }
  const BinaryPlan plan = raw::plan(op, a, b);
  const std::string name = std::string(name_of(op)) + "_";
  check_writable(name, a);
  check(common_device(name, a, b) == a.device(), name, ": tensors are on ", a.device(), " and ", b.device());
  if (kind_of(op) != ElementwiseKind::predicate) check_storable(name, plan.result, a);
  if (!(a.shape() == b.shape())) {
    const Dims shape = broadcast_shapes(name, a.shape(), b.shape());
    check(shape == a.shape(), name, ": the result of shape ", shape, " does not fit the tensor of shape ", a.shape());
  }
  a.storage()->bump_version();
  if (a.numel() == 0) return;
  if (plan.dtype == a.dtype() && plan.result == a.dtype()) {
    const View target = a;
    const bool tangled = a.storage() == b.storage() && overlaps(target, broadcast(b, a.shape()));
    run(plan, target, a, tangled ? clone(b) : b);
  } else {
    accelerator(a.device()).copy(a, binary(op, a, b));
  }
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  check(condition.dtype() == DType::boolean, "where: condition must be boolean, got ", condition.dtype());
  const DType dtype = result_type(a, b);
  const Device device = condition.device().kind == Device::cpu && condition.dim() == 0 ? common_device("where", a, b)
                                                                                       : condition.device();
  for (const Tensor* x : {&a, &b})
    check(x->device() == device || (x->dim() == 0 && x->device().kind == Device::cpu), "where: tensors are on ", device,
          " and ", x->device());
  const Dims shape = broadcast_shapes("where", condition.shape(), broadcast_shapes("where", a.shape(), b.shape()));
  Tensor y = uninitialized("where", shape, dtype, device);
  if (y.numel() == 0) return y;
  Operand mask(condition, DType::boolean, device), left(a, dtype, device), right(b, dtype, device);
  accelerator(device).where(y, mask.broadcast_to(shape), left.broadcast_to(shape), right.broadcast_to(shape));
  return y;
}

void masked_fill_into(const Tensor& y, const Tensor& mask, double value) {
  const char* const op = "masked_fill_";
  check(mask.dtype() == DType::boolean, op, ": the mask must be boolean, got ", mask.dtype());
  check_same_device(op, y, mask);
  check_writable(op, y);
  check(broadcast_shapes(op, y.shape(), mask.shape()) == y.shape(), op, ": a mask of shape ", mask.shape(),
        " does not broadcast to ", y.shape());
  const Tensor number = full({}, value, {y.dtype(), y.device()});
  const Tensor where = mask.storage() == y.storage() ? clone(mask) : mask;
  if (y.numel() > 0) accelerator(y.device()).where(y, broadcast(where, y.shape()), broadcast(number, y.shape()), y);
  y.storage()->bump_version();
}

}  // namespace loom::raw
