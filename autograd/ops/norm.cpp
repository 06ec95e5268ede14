// Layer, RMS and group norm, also of the sum of two tensors. Their rules call the fused kernel in a plain backward;
// where the backward itself is recorded (create_graph) they compute the same from x in ordinary ops.
#include <array>
#include <limits>
#include <memory>
#include <span>

#include <loom/accelerators/fused.h>
#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/norm_dtypes.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

View view_or_null(const Tensor& x) { return x.defined() ? View(x) : View(); }

// A tensor for the gradient of `x`, or an undefined one where none is wanted.
Tensor room_for(const Tensor& x, bool wanted) { return wanted && x.defined() ? empty_like(x) : Tensor(); }

void check_norm_input(const char* op, const Tensor& x, const Dims& shape) {
  check(is_floating(x.dtype()), op, ": given x of ", x.dtype(), ", expected a floating dtype");
  bool fits = !shape.empty() && x.dim() >= shape.size();
  for (int d = 0; fits && d < shape.size(); ++d) fits = x.size(x.dim() - shape.size() + d) == shape[d];
  check(fits, op, ": given x of shape ", x.shape(), " and normalized shape ", shape,
        ", expected x to end in that shape");
}

void check_norm_parameter(const char* op, const char* what, const Tensor& parameter, const Dims& shape,
                          const Tensor& x) {
  if (!parameter.defined()) return;
  raw::check_same_device(op, x, parameter);
  check(parameter.shape() == shape, op, ": given ", what, " of shape ", parameter.shape(), ", expected ", shape);
  check_norm_dtype(op, what, parameter, x);
}

// What layer_norm, rms_norm and group_norm share: x as `rows` rows of `columns` elements, each normalised by itself,
// and as [.., channels, spread], where each channel has its weight.
struct RowNorm {
  const Op& op;
  bool rms;
  double eps;
  int64_t rows, columns, channels, spread = 1;

  Tensor flat(const Tensor& x) const { return contiguous(reshape(x, {rows, columns})); }
  Tensor flat_parameter(const Tensor& w) const { return w.defined() ? reshape(w, {channels}) : Tensor(); }
  Dims by_channel() const {
    return {channels * spread == 0 ? 0 : rows * columns / (channels * spread), channels, spread};
  }
  Tensor forward(const Tensor& x, const Tensor& w, const Tensor& b) const;
  Grads fused(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
              const std::array<Tensor, 3>& grads) const;
  Grads composed(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b, const Needs& needs) const;
};

// grads: where the gradients of x, weight and bias go, in their shapes; undefined ones are not computed.
Grads RowNorm::fused(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                     const std::array<Tensor, 3>& grads) const {
  const auto flat_view = [&](const Tensor& t, const Dims& shape) {
    return t.defined() ? View(raw::reshape(t, shape)) : View();
  };
  accelerator(x.device())
      .layer_norm_grad(flat_view(grads[0], {rows, columns}), flat_view(grads[1], {channels}),
                       flat_view(grads[2], {channels}), flat(g.to(x.dtype())), flat(x), view_or_null(flat_parameter(w)),
                       view_or_null(mean), rstd, rms, spread);
  return {grads[0], grads[1], grads[2]};
}

Grads RowNorm::composed(const Tensor& gradient, const Tensor& input, const Tensor& weight, const Tensor& bias,
                        const Needs& needs) const {
  const DType wide = statistics_dtype(input.dtype());
  const Tensor x = flat(input).to(wide), g = flat(gradient).to(wide);
  const Tensor centered = rms ? x : x - mean(x, {1}, true);
  const Tensor rstd = rsqrt(mean(square(centered), {1}, true) + eps), normal = centered * rstd;
  const auto per_channel = [&](const Tensor& t, const Dims& shape) {
    return reshape(sum(reshape(t, by_channel()), {0, 2}), shape);
  };
  Grads grads(3);
  if (needs[0]) {
    Tensor h = g;
    if (weight.defined())
      h = reshape(reshape(g, by_channel()) * reshape(weight, {channels, 1}).to(wide), {rows, columns});
    const Tensor along = normal * mean(h * normal, {1}, true);
    grads[0] = reshape(rstd * (rms ? h - along : h - mean(h, {1}, true) - along), input.shape());
  }
  if (needs[1]) grads[1] = per_channel(g * normal, weight.shape());
  if (needs[2]) grads[2] = per_channel(g, bias.shape());
  return grads;
}

Tensor RowNorm::forward(const Tensor& x, const Tensor& w, const Tensor& b) const {
  const TensorOptions statistics(statistics_dtype(x.dtype()), x.device());
  const Tensor mean = rms ? Tensor() : empty({rows}, statistics), rstd = empty({rows}, statistics);
  const Tensor y = empty(x.shape(), {x.dtype(), x.device()});
  {
    const NoGrad off;
    if (y.numel() > 0)
      accelerator(x.device())
          .layer_norm(raw::reshape(y, {rows, columns}), view_or_null(mean), rstd, flat(x),
                      view_or_null(flat_parameter(w)), view_or_null(flat_parameter(b)), eps, rms, spread);
  }
  const auto rule = [norm = *this, x = save(x), w = save(w), b_like = b, mean, rstd](const Tensor& g,
                                                                                     const Needs& needs) {
    if (context().grad_mode || x().numel() == 0) return norm.composed(g, x(), w(), b_like, needs);
    return norm.fused(g, x(), w(), mean, rstd,
                      {room_for(x(), needs[0]), room_for(w(), needs[1]), room_for(b_like, needs[2])});
  };
  return record(op, y, {x, w, b}, rule);
}

Tensor row_norm(bool rms, const Tensor& input, const Dims& shape, const Tensor& scale, const Tensor& offset,
                double eps) {
  const Op& op = rms ? ops::rms_norm : ops::layer_norm;
  const auto [x, w, b] = enter(op, input, scale, offset);
  check_norm_input(op.name, x, shape);
  check_norm_parameter(op.name, "weight", w, shape, x);
  check_norm_parameter(op.name, "bias", b, shape, x);
  const int64_t columns = shape.numel();
  return RowNorm{op, rms, eps, columns == 0 ? 0 : x.numel() / columns, columns, columns}.forward(x, w, b);
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Dims& shape, const Tensor& weight, const Tensor& bias, double eps) {
  return row_norm(false, x, shape, weight, bias, eps);
}

namespace {

double smallest_step(DType t) {
  switch (t) {
    case DType::f64:
      return std::numeric_limits<double>::epsilon();
    case DType::f16:
      return 0x1p-10;
    case DType::bf16:
      return 0x1p-7;
    default:
      return static_cast<double>(std::numeric_limits<float>::epsilon());
  }
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Dims& shape, const Tensor& weight, std::optional<double> eps) {
  return row_norm(true, x, shape, weight, {}, eps ? *eps : smallest_step(x.dtype()));
}

namespace {

// A residual stream, what joins it, and the norm of both: two outputs of one node.
struct AddNorm {
  RowNorm norm;
  FusedKernels& kernels;

  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& branch, const Tensor& w, const Tensor& b) const;
  Grads backward(const Tensor& g_sum, const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b_like,
                 const Tensor& mean, const Tensor& rstd, const Needs& needs) const;
};

// Gradients of x, branch (the same), weight and bias; one of both incoming ones may be undefined. x: the sum.
Grads AddNorm::backward(const Tensor& g_sum, const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b_like,
                        const Tensor& mean, const Tensor& rstd, const Needs& needs) const {
  if (!g.defined()) return {g_sum, g_sum, Tensor(), Tensor()};
  Needs of_norm;
  if (needs[0] || needs[1]) of_norm.set(0);
  if (needs[2]) of_norm.set(1);
  if (needs[3]) of_norm.set(2);
  if (context().grad_mode) {
    const Grads own = norm.composed(g, x, w, b_like, of_norm);
    const Tensor d = own[0].defined() && g_sum.defined() ? own[0] + g_sum : own[0];
    return {d, d, own[1], own[2]};
  }
  const Tensor dx = room_for(x, of_norm[0]), dw = room_for(w, needs[2]), db = room_for(b_like, needs[3]);
  const auto output = [](const Tensor& t, const Dims& shape) {
    return t.defined() ? View(raw::reshape(t, shape)) : View();
  };
  const Tensor dy = norm.flat(g.to(x.dtype())), plus = g_sum.defined() ? norm.flat(g_sum.to(x.dtype())) : Tensor();
  const Tensor weight = norm.flat_parameter(w);  // may be a copy
  kernels.add_layer_norm_grad(output(dx, {norm.rows, norm.columns}), output(dw, {norm.channels}),
                              output(db, {norm.channels}), dy, view_or_null(plus), norm.flat(x), view_or_null(weight),
                              view_or_null(mean), rstd, norm.rms);
  return {dx, dx, dw, db};
}

std::pair<Tensor, Tensor> AddNorm::forward(const Tensor& x, const Tensor& branch, const Tensor& w,
                                           const Tensor& b) const {
  const TensorOptions statistics(statistics_dtype(x.dtype()), x.device()), like(x.dtype(), x.device());
  const Tensor mean = norm.rms ? Tensor() : empty({norm.rows}, statistics), rstd = empty({norm.rows}, statistics);
  const Tensor sum = empty(x.shape(), like), y = empty(x.shape(), like);
  {
    const NoGrad off;
    const auto rows = [&](const Tensor& t) { return View(raw::reshape(t, {norm.rows, norm.columns})); };
    const Tensor dense = contiguous(branch);
    kernels.add_layer_norm(rows(sum), rows(y), view_or_null(mean), rstd, norm.flat(x), rows(dense),
                           view_or_null(norm.flat_parameter(w)), view_or_null(norm.flat_parameter(b)), norm.eps,
                           norm.rms);
  }
  const std::array<Tensor, 4> inputs{x, branch, w, b};
  if (!autograd::detail::any_requires_grad(inputs)) return {sum, y};
  // The sum is an output of the node that keeps it: kept without its graph, and linked again for gradients of
  // gradients.
  const auto self = std::make_shared<Node*>(nullptr);
  const auto rule = [self, add = *this, sum = save(autograd::detail::without_graph(sum)), w = save(w), b_like = b, mean,
                     rstd](std::span<const Tensor> grads, const Needs& needs) {
    return add.backward(grads[0], grads[1], autograd::detail::with_node(sum(), **self), w(), b_like, mean, rstd, needs);
  };
  const auto node = autograd::detail::make_node(norm.op, inputs, rule, 2);
  *self = node.get();
  autograd::detail::attach(sum, *node, 0);
  autograd::detail::attach(y, *node, 1);
  return {sum, y};
}

// Kernels add a branch of x's dtype, or of 16 bits to an x of f32; other pairs, and other devices, take two ops.
std::pair<Tensor, Tensor> add_row_norm(bool rms, const Tensor& x_, const Tensor& branch_, const Dims& shape,
                                       const Tensor& weight, const Tensor& bias, std::optional<double> eps) {
  const Op& op = rms ? ops::add_rms_norm : ops::add_layer_norm;
  const Tensor& given = resolve(branch_);
  raw::check_same_device(op.name, x_, given);
  check(x_.shape() == given.shape(), op.name, ": given x of shape ", x_.shape(), " and a branch of shape ",
        given.shape(), ", expected equal shapes");
  FusedKernels* const kernels = accelerator(given.device()).fused();
  const auto [x, w, b] = enter(op, x_, weight, bias);
  const bool reads_half = kernels != nullptr && x.dtype() == DType::f32 && is_half(given.dtype());
  std::optional<Entered<1>> cast;
  if (!reads_half) cast.emplace(op, branch_);
  const Tensor &residual = x, &added = cast ? cast->get<0>() : given, &scale = w, &offset = b;
  return speaking_as(op.name, [&]() -> std::pair<Tensor, Tensor> {
    if (kernels == nullptr || (!reads_half && residual.dtype() != added.dtype()) || residual.numel() == 0 ||
        !is_floating(residual.dtype())) {
      const NoAutocast as_given;
      const Tensor sum = residual + added;
      return {sum, row_norm(rms, sum, shape, scale, offset, eps ? *eps : smallest_step(sum.dtype()))};
    }
    check_norm_input(op.name, residual, shape);
    check_norm_parameter(op.name, "weight", scale, shape, residual);
    check_norm_parameter(op.name, "bias", offset, shape, residual);
    const int64_t columns = shape.numel();
    const double epsilon = eps ? *eps : smallest_step(residual.dtype());
    const RowNorm norm{op, rms, epsilon, residual.numel() / columns, columns, columns};
    return AddNorm{norm, *kernels}.forward(residual, added, scale, offset);
  });
}

}  // namespace

std::pair<Tensor, Tensor> add_layer_norm(const Tensor& x, const Tensor& branch, const Dims& shape, const Tensor& weight,
                                         const Tensor& bias, double eps) {
  return add_row_norm(false, x, branch, shape, weight, bias, eps);
}

std::pair<Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& branch, const Dims& shape, const Tensor& weight,
                                       std::optional<double> eps) {
  return add_row_norm(true, x, branch, shape, weight, {}, eps);
}

// Each group of channels of a sample is a row.
Tensor group_norm(const Tensor& input, int64_t groups, const Tensor& weight, const Tensor& bias, double eps) {
  const auto [x, w, b] = enter(ops::group_norm, input, weight, bias);
  check(x.dim() >= 2, "group_norm: given x of shape ", x.shape(), ", expected [N, C, ..]");
  check(is_floating(x.dtype()), "group_norm: given x of ", x.dtype(), ", expected a floating dtype");
  const int64_t channels = x.size(1);
  check(groups >= 1 && channels % groups == 0, "group_norm: given ", groups, " groups for x of shape ", x.shape(),
        ", expected groups that divide its ", channels, " channels");
  check_norm_parameter("group_norm", "weight", w, {channels}, x);
  check_norm_parameter("group_norm", "bias", b, {channels}, x);
  const int64_t rows = x.size(0) * groups, each = x.size(0) * channels;
  return RowNorm{
      ops::group_norm, false, eps, rows, rows == 0 ? 0 : x.numel() / rows, channels, each == 0 ? 0 : x.numel() / each}
      .forward(x, w, b);
}

}  // namespace loom
