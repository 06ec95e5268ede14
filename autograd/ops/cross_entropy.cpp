// Cross entropy and negative log-likelihood over rows [N, C]; other shapes are brought to rows.
#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

DType wide_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

// x [C], [N, C] or [N, C, d1, ..] as rows [N d1 .., C].
Tensor as_rows(const char* op, const Tensor& x) {
  check(x.dim() >= 1, op, ": given a 0-dimensional input, expected [C], [N, C] or [N, C, d1, ..]");
  if (x.dim() == 1) return unsqueeze(x, 0);
  if (x.dim() == 2) return x;
  const int64_t classes = x.size(1);
  return reshape(movedim(x, 1, -1), {classes == 0 ? 0 : x.numel() / classes, classes});
}

// The shape of x without its classes: that of class indices, and of unreduced losses.
Dims positions_shape(const Dims& x) {
  Dims shape = x;
  shape.erase(x.size() == 1 ? 0 : 1);
  return shape;
}

void check_class_options(const char* op, const Tensor& x, const Tensor& target, const Tensor& weight) {
  check(is_floating(x.dtype()), op, ": given an input of ", x.dtype(), ", expected a floating dtype");
  raw::check_same_device(op, x, target);
  if (weight.defined()) {
    raw::check_same_device(op, x, weight);
    const int64_t classes = x.size(x.dim() == 1 ? 0 : 1);
    check(weight.shape() == Dims{classes}, op, ": given weight of shape ", weight.shape(), ", expected [", classes,
          "]");
    check(weight.dtype() == wide_dtype(x.dtype()) || weight.dtype() == x.dtype(), op, ": given weight of ",
          weight.dtype(), " for an input of ", x.dtype(), ", expected the same");
    check(!requires_grad(weight), op, ": given a weight that requires grad, expected a constant; detach it");
  }
  if (is_floating(target.dtype())) return;
  check(target.dtype() == DType::i64, op, ": given a target of ", target.dtype(), ", expected class indices (i64)",
        op == std::string_view("cross_entropy") ? " or probabilities (floating)" : "");
  check(target.shape() == positions_shape(x.shape()), op, ": given an input of shape ", x.shape(),
        " and class indices (i64) of shape ", target.shape(), ", expected class indices of shape ",
        positions_shape(x.shape()));
}

// Class indices per row, what each row weighs (0: ignored), in the dtype that sums are made in.
struct Rows {
  Tensor target, counted, weights;
  Rows(const Tensor& positions, const Tensor& weight, int64_t ignore_index, DType dtype)
      : target(positions), counted(target != ignore_index) {
    weights = weight.defined() ? masked_index(weight.to(dtype)) : counted.to(dtype);
  }
  // Class 0 stands in for what is ignored.
  Tensor safe_target() const { return where(counted, target, zeros_like(target)); }

 private:
  Tensor masked_index(const Tensor& weight) const {
    return index_select(weight, 0, safe_target()) * counted.to(weight.dtype());
  }
};

// Mean over weights, sum, or back to the positions' shape.
Tensor reduced(const Tensor& losses, const Tensor& weights, Reduction reduction, const Dims& shape) {
  if (reduction == Reduction::none) return reshape(losses, shape);
  return reduction == Reduction::sum ? sum(losses) : sum(losses) / sum(weights);
}

struct FusedCrossEntropy {
  Tensor target, weight;
  int64_t ignore_index;
  double smoothing;

  loom::CrossEntropy options() const { return {weight.defined() ? View(weight) : View(), ignore_index, smoothing}; }
  Tensor fused(const Tensor& g, const Tensor& lse, const Saved& saved) const;
  Tensor composed(const Tensor& g, const Tensor& logits) const;
};

// Whether x is what an op has computed into memory of its own, by way of views perhaps: not memory of somebody else's.
bool is_computed(const Tensor& x) {
  const auto is_view = [](const Node& node) {
    for (const Op* const op : {&ops::reshape, &ops::transpose, &ops::permute, &ops::expand, &ops::squeeze,
                               &ops::unsqueeze, &ops::slice, &ops::select, &ops::diagonal, &ops::split, &ops::unbind})
      if (node.op == op) return true;
    return false;
  };
  const Node* node = x.body().node.get();
  while (node != nullptr && is_view(*node)) node = node->inputs[0].node.get();
  return node != nullptr;
}

// Where the gradient of logits goes: over them, if this is the last use of what nobody else holds.
Tensor place_of_gradient(const Tensor& logits) {
  const bool alone = logits.body_pointer()->references() == 1 && logits.storage()->references() == 1;
  if (!alone || keeps_graph() || accelerator(logits.device()).fused() == nullptr || !logits.is_contiguous() ||
      !is_computed(logits))
    return empty(logits.shape(), {logits.dtype(), logits.device()});
  logits.storage()->bump_version();
  return raw::alias(logits);
}

Tensor FusedCrossEntropy::fused(const Tensor& g, const Tensor& lse, const Saved& saved) const {
  const Tensor& logits = saved();
  Tensor dx = place_of_gradient(logits);
  if (dx.numel() > 0) accelerator(dx.device()).cross_entropy_grad(dx, g, lse, logits, target, options());
  return dx;
}

// g * (p * (a + s / C * sum w) - s / C * w - a * one_hot(t)), a = (1 - s) * w[t]; 0 in rows that do not count.
Tensor FusedCrossEntropy::composed(const Tensor& g, const Tensor& logits) const {
  const DType wide = wide_dtype(logits.dtype());
  const int64_t classes = logits.size(1);
  const Rows rows(target, weight, ignore_index, wide);
  const double share = smoothing / static_cast<double>(classes);
  const Tensor w = weight.defined() ? weight.to(wide) : ones({classes}, {wide, logits.device()});
  const Tensor a = unsqueeze(rows.weights * (1 - smoothing), 1);
  const Tensor of_p = softmax(logits.to(wide), 1) * (a + sum(w) * share);
  const Tensor hit = a * one_hot(rows.safe_target(), classes).to(wide);
  return unsqueeze(g.to(wide) * rows.counted.to(wide), 1) * (of_p - w * share - hit);
}

// Sum over the weights of the rows that count: what a mean divides by.
Tensor total_weight(const Tensor& target, const CrossEntropyOptions& options, DType wide) {
  const NoGrad off;
  return sum(Rows(target, options.weight, options.ignore_index, wide).weights);
}

// Losses [N] of logits [N, C], or what is reduced from them: one node, however they are reduced.
// Their dtype: `result`, wider perhaps than the logits'.
Tensor row_losses(const Tensor& input, const Tensor& target, const CrossEntropyOptions& options, DType result) {
  const auto [logits] = enter(ops::cross_entropy, input);
  const FusedCrossEntropy loss{target, options.weight, options.ignore_index, options.label_smoothing};
  const Dims shape{logits.size(0)};
  const Tensor lse = empty(shape, {wide_dtype(logits.dtype()), logits.device()});
  const bool reduces = options.reduction != Reduction::none;
  const Tensor losses = reduces ? empty_like(lse) : empty(shape, {result, logits.device()});
  if (losses.numel() > 0) accelerator(logits.device()).cross_entropy(losses, lse, logits, target, loss.options());
  Tensor y = losses, total;
  if (reduces) y = raw::reduce(Reduce::sum, losses, {}, false);
  if (options.reduction == Reduction::mean) {
    total = total_weight(target, options, lse.dtype());
    y = raw::binary(Binary::div, y, total);
  }
  if (reduces) y = raw::cast(y, result);
  return record(ops::cross_entropy, y, {logits},
                [loss, lse, total, reduces, shape, logits = save(logits)](const Tensor& g) -> Grads {
                  Tensor each = total.defined() ? g.to(total.dtype()) / total : g;
                  if (reduces) each = expand(each, shape);
                  return {context().grad_mode ? loss.composed(each, logits()) : loss.fused(each, lse, logits)};
                });
}

Tensor of_probabilities(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options) {
  check(options.ignore_index < 0, "cross_entropy: given ignore_index ", options.ignore_index,
        " and probabilities, expected class indices with it");
  const int64_t classes = logits.size(logits.dim() == 1 ? 0 : 1);
  const double s = options.label_smoothing;
  Tensor p = as_rows("cross_entropy", target);
  if (s != 0) p = p * (1 - s) + s / static_cast<double>(classes);
  if (options.weight.defined()) p = p * options.weight;
  const Tensor losses = -sum(log_softmax(as_rows("cross_entropy", logits), 1) * p, {1});
  if (options.reduction == Reduction::mean) return mean(losses);
  return options.reduction == Reduction::sum ? sum(losses) : reshape(losses, positions_shape(logits.shape()));
}

Tensor losses_of(const Tensor& logits, const Tensor& target, const Tensor& weight, const CrossEntropyOptions& given,
                 DType result) {
  CrossEntropyOptions options = given;
  options.weight = weight;
  check(logits.dim() >= 1, "cross_entropy: given a 0-dimensional input, expected [C], [N, C] or [N, C, d1, ..]");
  check_class_options("cross_entropy", logits, target, options.weight);
  check(options.label_smoothing >= 0 && options.label_smoothing <= 1, "cross_entropy: given label_smoothing ",
        options.label_smoothing, ", expected a number in [0, 1]");
  if (is_floating(target.dtype())) {
    check(target.shape() == logits.shape(), "cross_entropy: given an input of shape ", logits.shape(),
          " and probabilities (", target.dtype(), ") of shape ", target.shape(),
          ", expected equal shapes, or class indices (i64)");
    const auto loss = [&](const Tensor& x, const Tensor& p, const Tensor& of_classes) {
      options.weight = of_classes;
      return of_probabilities(x, p, options);
    };
    return in_wide(loss, logits, target, weight);
  }
  const Tensor input = as_rows("cross_entropy", logits), positions = reshape(target, {input.size(0)});
  const Tensor losses = row_losses(input, positions, options, result);
  return options.reduction == Reduction::none ? reshape(losses, positions_shape(logits.shape())) : losses;
}

// Under autocast losses are f32, and so are logits; kernels that widen what they read need no copy for that.
bool widens_itself(const Tensor& logits, const Tensor& target) {
  return context().autocast && logits.defined() && is_half(logits.dtype()) && !is_floating(target.dtype()) &&
         accelerator(logits.device()).fused() != nullptr;
}

}  // namespace

Tensor cross_entropy(const Tensor& logits_, const Tensor& target_, const CrossEntropyOptions& given) {
  if (const Tensor& logits = resolve(logits_); widens_itself(logits, resolve(target_))) {
    const auto [weight] = enter(ops::cross_entropy, given.weight);
    const NoAutocast as_given;
    return losses_of(logits, resolve(target_), weight, given, DType::f32);
  }
  return compose(ops::cross_entropy, std::tie(logits_, target_, given.weight),
                 [&](const Tensor& logits, const Tensor& target, const Tensor& weight) {
                   return losses_of(logits, target, weight, given, logits.dtype());
                 });
}

Tensor nll_loss(const Tensor& log_probabilities, const Tensor& target, const NllOptions& given) {
  return compose(ops::nll_loss, std::tie(log_probabilities, given.weight), [&](const Tensor& x, const Tensor& weight) {
    NllOptions options = given;
    options.weight = weight;
    check(x.dim() >= 1, "nll_loss: given a 0-dimensional input, expected [C], [N, C] or [N, C, d1, ..]");
    check(!is_floating(target.dtype()), "nll_loss: given a target of ", target.dtype(),
          ", expected class indices (i64)");
    check_class_options("nll_loss", x, target, options.weight);
    const Tensor input = as_rows("nll_loss", x), positions = reshape(target, {input.size(0)});
    const Rows rows(positions, options.weight, options.ignore_index, wide_dtype(x.dtype()));
    const Tensor at = unsqueeze(rows.safe_target(), 1);
    const Tensor chosen = squeeze(gather(input, 1, at), 1).to(rows.weights.dtype());
    // where, not a product: -inf in a row that does not count must not become NaN.
    const Tensor losses = where(rows.counted, -chosen * rows.weights, zeros_like(chosen));
    return reduced(losses, rows.weights, options.reduction, positions_shape(x.shape())).to(x.dtype());
  });
}

}  // namespace loom
