// Layer, RMS, group and batch norm. Their rules call the fused kernel in a plain backward; where the backward itself is
// recorded (create_graph) they compute the same from x in ordinary ops.
#include <limits>

#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

// Statistics are kept in f32, in f64 for f64.
DType statistics_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

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

// A kernel takes parameters in x's dtype or in that of the statistics (mixed precision).
void check_norm_parameter(const char* op, const char* what, const Tensor& parameter, const Dims& shape,
                          const Tensor& x) {
  if (!parameter.defined()) return;
  raw::check_same_device(op, x, parameter);
  check(parameter.shape() == shape, op, ": given ", what, " of shape ", parameter.shape(), ", expected ", shape);
  const DType wide = statistics_dtype(x.dtype());
  check(parameter.dtype() == x.dtype() || parameter.dtype() == wide, op, ": given ", what, " of ", parameter.dtype(),
        " and x of ", x.dtype(), ", expected ", what, " to be ", x.dtype(),
        wide == x.dtype() ? std::string() : str(" or ", wide));
}

// What layer_norm and rms_norm share: x as `rows` rows of `columns` elements.
struct RowNorm {
  bool rms;
  double eps;
  int64_t rows, columns;

  const Op& op() const { return rms ? ops::rms_norm : ops::layer_norm; }
  Tensor flat(const Tensor& x) const { return contiguous(reshape(x, {rows, columns})); }
  Tensor flat_parameter(const Tensor& w) const { return w.defined() ? reshape(w, {columns}) : Tensor(); }
  Grads fused(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
              const std::array<Tensor, 3>& grads) const;
  Grads composed(const Tensor& g, const Tensor& x, const Tensor& w, const Needs& needs) const;
};

// grads: where the gradients of x, weight and bias go, in their shapes; undefined ones are not computed.
Grads RowNorm::fused(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd,
                     const std::array<Tensor, 3>& grads) const {
  const auto flat_view = [&](const Tensor& t, const Dims& shape) {
    return t.defined() ? View(raw::reshape(t, shape)) : View();
  };
  accelerator(x.device())
      .layer_norm_grad(flat_view(grads[0], {rows, columns}), flat_view(grads[1], {columns}),
                       flat_view(grads[2], {columns}), flat(g.to(x.dtype())), flat(x), view_or_null(flat_parameter(w)),
                       view_or_null(mean), rstd, rms);
  return {grads[0], grads[1], grads[2]};
}

Grads RowNorm::composed(const Tensor& gradient, const Tensor& input, const Tensor& weight, const Needs& needs) const {
  const DType wide = statistics_dtype(input.dtype());
  const Tensor x = flat(input).to(wide), g = flat(gradient).to(wide);
  const Tensor centered = rms ? x : x - mean(x, {1}, true);
  const Tensor rstd = rsqrt(mean(square(centered), {1}, true) + eps), normal = centered * rstd;
  Grads grads(3);
  if (needs[0]) {
    const Tensor h = weight.defined() ? g * flat_parameter(weight).to(wide) : g;
    const Tensor along = normal * mean(h * normal, {1}, true);
    grads[0] = reshape(rstd * (rms ? h - along : h - mean(h, {1}, true) - along), input.shape());
  }
  if (needs[1]) grads[1] = reshape(sum(g * normal, {0}), weight.shape());
  if (needs[2]) grads[2] = sum(g, {0});
  return grads;
}

Tensor row_norm(bool rms, const Tensor& input, const Dims& shape, const Tensor& scale, const Tensor& offset,
                double eps) {
  const Op& op = rms ? ops::rms_norm : ops::layer_norm;
  const auto [x, w, b] = enter(op, input, scale, offset);
  check_norm_input(op.name, x, shape);
  check_norm_parameter(op.name, "weight", w, shape, x);
  check_norm_parameter(op.name, "bias", b, shape, x);
  const int64_t columns = shape.numel();
  const RowNorm norm{rms, eps, columns == 0 ? 0 : x.numel() / columns, columns};
  const TensorOptions statistics(statistics_dtype(x.dtype()), x.device());
  const Tensor mean = rms ? Tensor() : empty({norm.rows}, statistics), rstd = empty({norm.rows}, statistics);
  const Tensor y = empty(x.shape(), {x.dtype(), x.device()});
  {
    const NoGrad off;
    if (y.numel() > 0)
      accelerator(x.device())
          .layer_norm(raw::reshape(y, {norm.rows, columns}), view_or_null(mean), rstd, norm.flat(x),
                      view_or_null(norm.flat_parameter(w)), view_or_null(norm.flat_parameter(b)), eps, rms);
  }
  const auto rule = [norm, x = save(x), w = save(w), b_like = b, mean, rstd](const Tensor& g, const Needs& needs) {
    if (context().grad_mode || x().numel() == 0) {
      Grads grads = norm.composed(g, x(), w(), needs);
      if (needs[2]) grads[2] = reshape(grads[2], b_like.shape());
      return grads;
    }
    return norm.fused(g, x(), w(), mean, rstd,
                      {room_for(x(), needs[0]), room_for(w(), needs[1]), room_for(b_like, needs[2])});
  };
  return record(op, y, {x, w, b}, rule);
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Dims& shape, const Tensor& weight, const Tensor& bias, double eps) {
  return row_norm(false, x, shape, weight, bias, eps);
}

Tensor rms_norm(const Tensor& x, const Dims& shape, const Tensor& weight, std::optional<double> eps) {
  const auto smallest_step = [](DType t) {
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
  };
  return row_norm(true, x, shape, weight, {}, eps ? *eps : smallest_step(x.dtype()));
}

// Each group of channels of a sample is a row.
Tensor group_norm(const Tensor& x_, int64_t groups, const Tensor& weight_, const Tensor& bias_, double eps) {
  return compose(ops::group_norm, std::tie(x_, weight_, bias_),
                 [&](const Tensor& x, const Tensor& weight, const Tensor& bias) {
                   check(x.dim() >= 2, "group_norm: given x of shape ", x.shape(), ", expected [N, C, ..]");
                   const int64_t channels = x.size(1);
                   check(groups >= 1 && channels % groups == 0, "group_norm: given ", groups, " groups for x of shape ",
                         x.shape(), ", expected groups that divide its ", channels, " channels");
                   check_norm_parameter("group_norm", "weight", weight, {channels}, x);
                   check_norm_parameter("group_norm", "bias", bias, {channels}, x);
                   if (x.numel() == 0) return clone(x);
                   const int64_t rows = x.size(0) * groups, columns = x.numel() / rows;
                   Tensor y = reshape(layer_norm(reshape(wide(x), {rows, columns}), {columns}, {}, {}, eps), x.shape());
                   Dims per_channel = Dims::filled(x.dim(), 1);
                   per_channel[1] = channels;
                   if (weight.defined()) y = y * reshape(weight, per_channel);
                   if (bias.defined()) y = y + reshape(bias, per_channel);
                   return y.to(x.dtype());
                 });
}

}  // namespace loom
