#include <loom/nn/optim/grad_scaler.h>

#include <loom/autograd/ops.h>

namespace loom::optim {

void GradScaler::require_scale(const char* call) const {
  check(used_, "GradScaler: attempted ", call,
        " but nothing has been scaled; is scaler.scale(loss) missing earlier in the iteration?");
}

Tensor GradScaler::scale(const Tensor& loss) {
  if (!is_enabled()) return loss;
  used_ = true;
  scale_.to(loss.device());
  return scaled(loss, scale_.value());
}

void GradScaler::unscale_(Optimizer& optimizer) {
  if (!is_enabled()) return;
  require_scale("unscale_");
  PerOptimizer& state = optimizers_[&optimizer];
  check(state.stage != Stage::unscaled,
        "unscale_() has already been called on this optimizer since the last update().");
  check(state.stage != Stage::stepped, "unscale_() is being called after step().");
  const std::vector<Tensor> gradients = optimizer.gradients();
  if (!gradients.empty()) state.found = unscale(optimizer, gradients, scale_.value());
  state.stage = Stage::unscaled;
}

StepOutcome GradScaler::step(Optimizer& optimizer) {
  if (!is_enabled()) {
    optimizer.step();
    return true;
  }
  require_scale("step");
  PerOptimizer& state = optimizers_[&optimizer];
  check(state.stage != Stage::stepped, "step() has already been called since the last update().");
  if (state.stage == Stage::ready) unscale_(optimizer);
  check(state.found.defined(), "No inf checks were recorded for this optimizer.");
  state.stage = Stage::stepped;
  return optimizer.step_unless(state.found);
}

void GradScaler::update(std::optional<double> new_scale) {
  if (!is_enabled()) return;
  require_scale("update");
  if (new_scale) {
    LossScale next = scale_;
    next.set(*new_scale);
    scale_.become(next);
  } else {
    const NoGrad off;
    Tensor found;
    for (const auto& [optimizer, state] : optimizers_)
      if (state.found.defined()) found = found.defined() ? maximum(found, state.found) : state.found;
    check(found.defined(), "No inf checks were recorded prior to update.");
    scale_.check_room(found);
    scale_.become(scale_.after(found));
  }
  optimizers_.clear();
}

Tensor GradScaler::found_inf(const Optimizer& optimizer) const {
  const auto found = optimizers_.find(&optimizer);
  return found == optimizers_.end() ? Tensor() : found->second.found;
}

double GradScaler::get_scale() const { return is_enabled() ? scale_.value().item<double>() : 1; }

State GradScaler::state_dict() const {
  if (!is_enabled()) return {};
  State out = scale_.state_dict();
  for (auto& [name, x] : out)
    if (x.device().kind != Device::cpu) x = x.clone();  // ours are written to
  return out;
}

void GradScaler::check_state_dict(const State& values) const {
  if (is_enabled()) scale_.check_state_dict(values);
}

void GradScaler::load_state_dict(const State& values) {
  if (!is_enabled()) return;
  LossScale next = scale_;
  next.load_state_dict(values);
  scale_.become(next);
}

}  // namespace loom::optim
