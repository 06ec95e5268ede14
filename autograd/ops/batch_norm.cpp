// Batch norm (Ioffe, Szegedy 2015): with the batch's statistics, through which gradients flow, or with given ones; also
// with what is added to it and a ReLU.
#include <loom/autograd/autocast.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/norm_dtypes.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

View view_or_null(const Tensor& x) { return x.defined() ? View(x) : View(); }

// x as [N, C, L], dense: row-major, or with its channels last.
Tensor planes(const Tensor& x) {
  const int64_t n = x.size(0), c = x.size(1);
  const Tensor merged = reshape(x, {n, c, n * c == 0 ? 1 : x.numel() / (n * c)});
  return raw::is_channels_last(x) ? merged : contiguous(merged);
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
  if (needs[0]) grads[0] = raw::uninitialized_like("batch_norm", {&x}, x.shape(), x.dtype());
  if (needs[1]) grads[1] = empty_like(w);
  if (needs[2]) grads[2] = empty_like(b);
  const Tensor dx = needs[0] ? planes(grads[0]) : Tensor();
  accelerator(x.device())
      .batch_norm_grad(view_or_null(dx), view_or_null(grads[1]), view_or_null(grads[2]), planes(g), input, mean, var,
                       view_or_null(w), eps, training);
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

// The mean and variance that x is normalised with, and the running ones' move towards the batch's.
std::pair<Tensor, Tensor> statistics_of(const Tensor& x, const Tensor& known_mean, const Tensor& known_var,
                                        bool training, double momentum) {
  const DType wide = statistics_dtype(x.dtype());
  // Copies: the running statistics may move on before backward.
  if (!training) return {clone(known_mean.to(wide)), clone(known_var.to(wide))};
  Tensor mean = empty({x.size(1)}, {wide, x.device()}), var = empty_like(mean);
  if (x.numel() == 0) return {mean, var};
  accelerator(x.device()).batch_statistics(mean, var, planes(x));
  const auto count = static_cast<double>(x.numel()) / static_cast<double>(x.size(1));
  move_towards(known_mean, mean, momentum);
  move_towards(known_var, var * (count / (count - 1)), momentum);
  return {mean, var};
}

// What a call has made sure of.
struct Checked {
  const Tensor &x, &mean, &var, &w, &b;
  Checked(const Tensor& x_, const Tensor& mean_, const Tensor& var_, const Tensor& w_, const Tensor& b_, bool training)
      : x(x_), mean(mean_), var(var_), w(w_), b(b_) {
    check_input(x, mean, var, training);
    for (const auto& [what, t] :
         {std::pair("running_mean", mean), std::pair("running_var", var), std::pair("weight", w), std::pair("bias", b)})
      check_channels(what, t, x);
  }
};

}  // namespace

Tensor batch_norm(const Tensor& input, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight,
                  const Tensor& bias, bool training, double momentum, double eps) {
  const auto [x, w, b, known_mean, known_var] = enter(ops::batch_norm, input, weight, bias, running_mean, running_var);
  const Checked given(x, known_mean, known_var, w, b, training);
  const Tensor y = raw::uninitialized_like("batch_norm", {&x}, x.shape(), x.dtype());
  Tensor mean, var;
  {
    const NoGrad off;
    std::tie(mean, var) = statistics_of(x, known_mean, known_var, training, momentum);
    if (x.numel() > 0)
      accelerator(x.device()).batch_norm(planes(y), planes(x), mean, var, view_or_null(w), view_or_null(b), eps);
  }
  const auto rule = [norm = BatchNorm{eps, training}, x = save(x), w = save(w), b_like = b, mean, var](
                        const Tensor& g, const Needs& needs) {
    if (context().grad_mode || x().numel() == 0) return norm.composed(g, x(), w(), mean, var, needs);
    return norm.fused(g, x(), w(), b_like, mean, var, needs);
  };
  return record(ops::batch_norm, y, {x, w, b}, rule);
}

namespace {

// relu(batch_norm(x) + added) in one node. Inputs of the node: x, added, weight, bias.
struct BatchNormRelu {
  BatchNorm norm;

  Grads fused(const Tensor& g, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& mean,
              const Tensor& var, const Needs& needs) const;
  Grads composed(const Tensor& g, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& mean,
                 const Tensor& var, const Needs& needs) const;
};

Grads BatchNormRelu::fused(const Tensor& g, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& b,
                           const Tensor& mean, const Tensor& var, const Needs& needs) const {
  const auto image = [&](bool wanted) {
    return wanted ? raw::uninitialized_like("batch_norm_relu", {&x}, x.shape(), x.dtype()) : Tensor();
  };
  Grads grads{image(needs[0]), image(needs[1]), needs[2] ? empty_like(w) : Tensor(),
              needs[3] ? empty_like(b) : Tensor()};
  const Tensor dx = needs[0] ? planes(grads[0]) : Tensor(), d_added = needs[1] ? planes(grads[1]) : Tensor();
  accelerator(x.device())
      .batch_norm_relu_grad(view_or_null(dx), view_or_null(d_added), view_or_null(grads[2]), view_or_null(grads[3]),
                            planes(g), planes(y), planes(x), mean, var, view_or_null(w), norm.eps, norm.training);
  return grads;
}

Grads BatchNormRelu::composed(const Tensor& g, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& mean,
                              const Tensor& var, const Needs& needs) const {
  const Tensor masked = relu_backward(g, y);
  Needs of_norm;
  if (needs[0]) of_norm.set(0);
  if (needs[2]) of_norm.set(1);
  if (needs[3]) of_norm.set(2);
  const Grads own = norm.composed(masked, x, w, mean, var, of_norm);
  return {own[0], needs[1] ? masked : Tensor(), own[1], own[2]};
}

}  // namespace

Tensor batch_norm_relu(const Tensor& input, const Tensor& added_, const Tensor& running_mean, const Tensor& running_var,
                       const Tensor& weight, const Tensor& bias, bool training, double momentum, double eps) {
  const auto [x, added, w, b, known_mean, known_var] =
      enter(ops::batch_norm_relu, input, added_, weight, bias, running_mean, running_var);
  const Tensor &image = x, &more = added, &scale = w, &offset = b, &mean_before = known_mean, &var_before = known_var;
  return speaking_as("batch_norm_relu", [&] {
    if (more.defined()) {
      raw::check_same_device("batch_norm_relu", image, more);
      check(more.shape() == image.shape(), "batch_norm_relu: given x of shape ", image.shape(), " and added of shape ",
            more.shape(), ", expected equal shapes");
    }
    const Checked given(image, mean_before, var_before, scale, offset, training);
    if (image.numel() == 0 || (more.defined() && more.dtype() != image.dtype())) {
      const NoAutocast as_given;
      const Tensor y = batch_norm(image, mean_before, var_before, scale, offset, training, momentum, eps);
      return relu(more.defined() ? y + more : y);
    }
    const Tensor y = raw::uninitialized_like("batch_norm_relu", {&image}, image.shape(), image.dtype());
    Tensor mean, var;
    {
      const NoGrad off;
      std::tie(mean, var) = statistics_of(image, mean_before, var_before, training, momentum);
      const Tensor beside = more.defined() ? planes(more) : Tensor();
      accelerator(image.device())
          .batch_norm_relu(planes(y), planes(image), view_or_null(beside), mean, var, view_or_null(scale),
                           view_or_null(offset), eps);
    }
    const auto rule = [norm = BatchNormRelu{{eps, training}}, x = save(image), w = save(scale), b_like = offset, mean,
                       var](const Tensor& g, const Tensor& result, const Needs& needs) {
      return context().grad_mode ? norm.composed(g, result, x(), w(), mean, var, needs)
                                 : norm.fused(g, result, x(), w(), b_like, mean, var, needs);
    };
    return record(ops::batch_norm_relu, y, {image, more, scale, offset}, rule);
  });
}

}  // namespace loom
