// Losses of predictions against targets of the same shape.
#include <cmath>

#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

Tensor reduced(const Tensor& losses, Reduction reduction) {
  switch (reduction) {
    case Reduction::mean:
      return mean(losses);
    case Reduction::sum:
      return sum(losses);
    case Reduction::none:
      break;
  }
  return losses;
}

// Broadcasting [N, 1] against [N] is the usual silent mistake, so only a number may differ in shape.
void check_target(const char* op, const Tensor& x, const Tensor& target) {
  check(target.shape() == x.shape() || target.dim() == 0, op, ": given x of shape ", x.shape(), " and target of shape ",
        target.shape(), ", expected equal shapes");
  if (target.dim() > 0) raw::check_same_device(op, x, target);
}

}  // namespace

Tensor mse_loss(const Tensor& x_, const Tensor& target_, Reduction reduction) {
  return compose_wide(ops::mse_loss, std::tie(x_, target_), [&](const Tensor& x, const Tensor& target) {
    check_target("mse_loss", x, target);
    return reduced(square(x - target), reduction);
  });
}

Tensor l1_loss(const Tensor& x_, const Tensor& target_, Reduction reduction) {
  return compose_wide(ops::l1_loss, std::tie(x_, target_), [&](const Tensor& x, const Tensor& target) {
    check_target("l1_loss", x, target);
    return reduced(abs(x - target), reduction);
  });
}

// Quadratic below beta, linear above; the two meet with equal slopes.
Tensor smooth_l1_loss(const Tensor& x_, const Tensor& target_, Reduction reduction, double beta) {
  return compose_wide(ops::smooth_l1_loss, std::tie(x_, target_), [&](const Tensor& x, const Tensor& target) {
    check(beta >= 0, "smooth_l1_loss: given beta ", beta, ", expected at least 0");
    if (beta == 0) return l1_loss(x, target, reduction);
    check_target("smooth_l1_loss", x, target);
    const Tensor distance = x - target, size = abs(distance);
    return reduced(where(size < beta, square(distance) * (0.5 / beta), size - 0.5 * beta), reduction);
  });
}

Tensor huber_loss(const Tensor& x_, const Tensor& target_, Reduction reduction, double delta) {
  return compose_wide(ops::huber_loss, std::tie(x_, target_), [&](const Tensor& x, const Tensor& target) {
    check(delta > 0, "huber_loss: given delta ", delta, ", expected more than 0");
    check_target("huber_loss", x, target);
    const Tensor distance = x - target, size = abs(distance);
    return reduced(where(size <= delta, square(distance) * 0.5, (size - 0.5 * delta) * delta), reduction);
  });
}

namespace {

void check_same_places(const char* op, const Tensor& x, std::initializer_list<Tensor> others) {
  for (const Tensor& other : others)
    if (other.defined()) raw::check_same_device(op, x, other);
}

void check_probabilities(const Tensor& x) {
  if (x.device().kind != Device::cpu || x.numel() == 0) return;  // elsewhere a look at the values waits
  const auto low = raw::reduce(Reduce::min, x, {}, false).item<double>();
  const auto high = raw::reduce(Reduce::max, x, {}, false).item<double>();
  check(low >= 0 && high <= 1, "binary_cross_entropy: given x from ", low, " to ", high,
        ", expected probabilities in [0, 1]; for logits there is binary_cross_entropy_with_logits");
}

Tensor clamped_log(const Tensor& x) { return clamp(log(x), -100.0); }

// An op of its own, as the derivative of the clamped logarithms at 0 and 1 would be 0 * inf.
Tensor elementwise_bce(const Tensor& input, const Tensor& label) {
  const auto [x, t] = enter(ops::binary_cross_entropy, input, label);
  check_probabilities(x);
  Tensor y;
  {
    const NoGrad off;
    y = (t - 1.0) * clamped_log(1.0 - x) - t * clamped_log(x);
  }
  return record(ops::binary_cross_entropy, y, {x, t}, [x = save(x), t = save(t)](const Tensor& g, const Needs& needs) {
    Grads grads(2);
    if (needs[0]) grads[0] = g * (x() - t()) / clamp((1.0 - x()) * x(), 1e-12);
    if (needs[1]) grads[1] = g * (clamped_log(1.0 - x()) - clamped_log(x()));
    return grads;
  });
}

}  // namespace

Tensor binary_cross_entropy(const Tensor& x, const Tensor& target, const Tensor& weight, Reduction reduction) {
  return speaking_as("binary_cross_entropy", [&] {
    check(target.shape() == x.shape(), "binary_cross_entropy: given x of shape ", x.shape(), " and target of shape ",
          target.shape(), ", expected equal shapes");
    check_same_places("binary_cross_entropy", x, {target, weight});
    const auto loss = [&](const Tensor& p, const Tensor& label, const Tensor& share) {
      const Tensor losses = elementwise_bce(p, label);
      return reduced(share.defined() ? losses * share : losses, reduction);
    };
    return in_wide(loss, x, target, weight);
  });
}

// -(w t log s(x) + (1 - t) log(1 - s(x))) with log(1 - s(x)) = log s(x) - x, which no x overflows.
Tensor binary_cross_entropy_with_logits(const Tensor& x_, const Tensor& target_, const Tensor& weight_,
                                        Reduction reduction, const Tensor& pos_weight_) {
  return compose_wide(ops::binary_cross_entropy_with_logits, std::tie(x_, target_, weight_, pos_weight_),
                      [&](const Tensor& x, const Tensor& target, const Tensor& weight, const Tensor& pos_weight) {
                        check(target.shape() == x.shape(), "binary_cross_entropy_with_logits: given x of shape ",
                              x.shape(), " and target of shape ", target.shape(), ", expected equal shapes");
                        check_same_places("binary_cross_entropy_with_logits", x, {target, weight, pos_weight});
                        const Tensor of_log = pos_weight.defined() ? (pos_weight - 1.0) * target + 1.0 : Tensor();
                        const Tensor logs = logsigmoid(x);
                        const Tensor losses = (1.0 - target) * x - (pos_weight.defined() ? of_log * logs : logs);
                        return reduced(weight.defined() ? losses * weight : losses, reduction);
                      });
}

Tensor kl_div(const Tensor& x_, const Tensor& target_, KlReduction reduction, bool log_target) {
  return compose_wide(ops::kl_div, std::tie(x_, target_), [&](const Tensor& x, const Tensor& target) {
    check_target("kl_div", x, target);
    Tensor losses = log_target ? exp(target) * (target - x) : xlogy(target, target) - target * x;
    switch (reduction) {
      case KlReduction::mean:
        return mean(losses);
      case KlReduction::sum:
        return sum(losses);
      case KlReduction::none:
        return losses;
      case KlReduction::batchmean:
        break;
    }
    check(losses.dim() >= 1, "kl_div: given 0-dimensional inputs and batchmean, expected a batch dimension");
    return sum(losses) / static_cast<double>(losses.size(0));
  });
}

}  // namespace loom
