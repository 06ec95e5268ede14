// Batch norm (Ioffe, Szegedy 2015): with the batch's statistics, through which gradients flow, or with given ones.
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/norm_dtypes.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

View view_or_null(const Tensor& x) { return x.defined() ? View(x) : View(); }

// x as [N, C, L], dense.
Tensor planes(const Tensor& x) {
  const int64_t n = x.size(0), c = x.size(1);
  return contiguous(reshape(x, {n, c, n * c == 0 ? 1 : x.numel() / (n * c)}));
}

void check_channels(const char* what, const Tensor& t, const Tensor& x) {
  if (!t.defined()) return;
  raw::check_same_device("batch_norm", x, t);
  check(t.shape() == Dims{x.size(1)}, "batch_norm: given ", what, " of shape ", t.shape(), " for x of shape ",
        x.shape(), ", expected [", x.size(1), "]");
  check_norm_dtype("batch_norm", what, t, x);
}

void check_input(const Tensor& x, const Tensor& mean, const Tensor& var, bool training) {
  check(x.dim() >= 2, "batch_norm: given x of shape ", x.shape(), ", expected [N, C, ..]");
  check(is_floating(x.dtype()), "batch_norm: given x of ", x.dtype(), ", expected a floating dtype");
  check(mean.defined() == var.defined(), "batch_norm: given only one of running_mean and running_var, expected both");
  check(training || mean.defined(), "batch_norm: given no running statistics, expected them unless training");
  check(!training || x.numel() != x.size(1), "batch_norm: given x of shape ", x.shape(),
        " in training, expected more than 1 value per channel (their variance is 0; use a larger batch or eval)");
}

// running = (1 - momentum) * running + momentum * batch, in place.
void move_towards(const Tensor& running, const Tensor& batch, double momentum) {
  if (running.defined()) raw::copy_into(running, running * (1 - momentum) + batch.to(running.dtype()) * momentum);
}

struct BatchNorm {
  double eps;
  bool training;
  Grads fused(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& mean, const Tensor& var,
              const Needs& needs) const;
  Grads composed(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& var,
                 const Needs& needs) const;
};

Grads BatchNorm::fused(const Tensor& g, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& mean,
                       const Tensor& var, const Needs& needs) const {
  const Tensor input = planes(x);
  Grads grads(3);
  if (needs[0]) grads[0] = empty_like(input);
  if (needs[1]) grads[1] = empty_like(w);
  if (needs[2]) grads[2] = empty_like(b);
  accelerator(x.device())
      .batch_norm_grad(view_or_null(grads[0]), view_or_null(grads[1]), view_or_null(grads[2]), planes(g), input, mean,
                       var, view_or_null(w), eps, training);
  if (needs[0]) grads[0] = raw::reshape(grads[0], x.shape());
  return grads;
}

Grads BatchNorm::composed(const Tensor& gradient, const Tensor& input, const Tensor& weight, const Tensor& mean_kept,
                          const Tensor& var_kept, const Needs& needs) const {
  const DType wide = mean_kept.dtype();
  const Tensor x = planes(input).to(wide), g = planes(gradient).to(wide);
  const auto per_channel = [&](const Tensor& t) { return reshape(t.to(wide), {1, x.size(1), 1}); };
  const Tensor centered = x - (training ? mean(x, {0, 2}, true) : per_channel(mean_kept));
  const Tensor rstd = rsqrt((training ? mean(square(centered), {0, 2}, true) : per_channel(var_kept)) + eps);
  const Tensor normal = centered * rstd;
  Grads grads(3);
  if (needs[0]) {
    Tensor h = weight.defined() ? g * per_channel(weight) : g;
    if (training) h = h - mean(h, {0, 2}, true) - normal * mean(h * normal, {0, 2}, true);
    grads[0] = reshape(h * rstd, input.shape());
  }
  if (needs[1]) grads[1] = sum(g * normal, {0, 2});
  if (needs[2]) grads[2] = sum(g, {0, 2});
  return grads;
}

}  // namespace

Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight,
                  const Tensor& bias, bool training, double momentum, double eps) {
  const auto [x, w, b, known_mean, known_var] = enter(ops::batch_norm, input, weight, bias, running_mean, running_var);
  check_input(x, known_mean, known_var, training);
  for (const auto& [what, t] : {std::pair("running_mean", known_mean), std::pair("running_var", known_var),
                                std::pair("weight", w), std::pair("bias", b)})
    check_channels(what, t, x);
  const Tensor y = empty(x.shape(), {x.dtype(), x.device()});
  Tensor mean, var;
  {
    const NoGrad off;
    const DType wide = statistics_dtype(x.dtype());
    const Tensor dense = planes(x);
    // Copies: the running statistics may move on before backward.
    mean = training ? empty({x.size(1)}, {wide, x.device()}) : clone(known_mean.to(wide));
    var = training ? empty_like(mean) : clone(known_var.to(wide));
    if (training && x.numel() > 0) {
      accelerator(x.device()).batch_statistics(mean, var, dense);
      const auto count = static_cast<double>(x.numel()) / static_cast<double>(x.size(1));
      move_towards(known_mean, mean, momentum);
      move_towards(known_var, var * (count / (count - 1)), momentum);
    }
    if (x.numel() > 0)
      accelerator(x.device())
          .batch_norm(raw::reshape(y, dense.shape()), dense, mean, var, view_or_null(w), view_or_null(b), eps);
  }
  const auto rule = [norm = BatchNorm{eps, training}, x = save(x), w = save(w), b_like = b, mean, var](
                        const Tensor& g, const Needs& needs) {
    if (context().grad_mode || x().numel() == 0) return norm.composed(g, x(), w(), mean, var, needs);
    return norm.fused(g, x(), w(), b_like, mean, var, needs);
  };
  return record(ops::batch_norm, y, {x, w, b}, rule);
}

}  // namespace loom
