#include <loom/fabric/loss_scaling.h>

#include <algorithm>
#include <span>
#include <utility>

#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

// Changes whenever a backward pass has added to a gradient.
uint64_t state_of(std::span<const Tensor> gradients) {
  uint64_t hash = 0;
  for (const Tensor& g : gradients)
    hash = (hash ^ (reinterpret_cast<uintptr_t>(g.body_pointer().get()) + g.version())) * 0x9E3779B97F4A7C15u;
  return hash;
}

bool is_same(const Tensor& a, const Tensor& b) { return a.body_pointer() == b.body_pointer(); }

// Powers of two are exact, but for what 16 bits cannot hold: of products, not of the factor.
void multiply(const Tensor& gradient, const Tensor& factor) {
  if (is_half(gradient.dtype()))
    gradient.copy_(gradient.to(DType::f32) * factor);
  else
    gradient.mul_(factor);
}

void rescale(std::span<const Tensor> gradients, const Tensor& from, const Tensor& to) {
  const NoGrad off;
  const Tensor ratio = to.to(DType::f64) / from.to(DType::f64);
  for (const Tensor& g : gradients) multiply(g, ratio);
}

// Gradients that carry no scale get one. Those of 16 bits still have an older one, and what makes them true.
void lift(optim::Optimizer& optimizer, std::span<const Tensor> gradients, const Tensor& to) {
  const NoGrad off;
  const Tensor all = to.to(DType::f64), factor = optimizer.half_factor();
  const Tensor of_half = factor.defined() ? all * factor.to(DType::f64) : all;
  for (const Tensor& g : gradients) multiply(g, is_half(g.dtype()) ? of_half : all);
  optimizer.set_half_factor({});
}

// A look at gradients that are true already: what they need to be so stays.
Tensor look(optim::Optimizer& optimizer, std::span<const Tensor> gradients, Device device) {
  const Tensor factor = optimizer.half_factor();
  Tensor found = optim::unscale(optimizer, gradients, full({}, 1, TensorOptions(f32, device)));
  if (factor.defined()) optimizer.set_half_factor(factor);
  return found;
}

}  // namespace

bool LossScaling::are_zero(std::span<const Tensor> gradients) {
  const NoGrad off;
  return std::ranges::all_of(gradients, [](const Tensor& g) { return (g == 0.0).all().item<bool>(); });
}

void LossScaling::forget_expired() {
  std::erase_if(held_, [](const Held& h) { return h.optimizer.expired(); });
}

// Gradients that are there already were made by a backward pass of this Fabric, if there has been one.
void LossScaling::setup_optimizer(const std::shared_ptr<OptimizerSync>& optimizer) {
  forget_expired();
  Held& own = held_.emplace_back(Held{.optimizer = optimizer});
  if (used_ && !optimizer->gradients().empty()) own.scale = in_use_;
}

LossScaling::Held& LossScaling::held(const OptimizerSync& optimizer) {
  const auto found = std::ranges::find_if(held_, [&](const Held& h) { return h.optimizer.lock().get() == &optimizer; });
  check(found != held_.end(), "loss scaling: the optimizer was not set up by this Fabric");
  return *found;
}

void LossScaling::move_to(Device device) {
  if (in_use_.device() == device) return;
  scale_.to(device);
  next_.to(device);
  in_use_ = raw::to_device(in_use_, device);
  if (found_.defined()) found_ = raw::to_device(found_, device);
}

void LossScaling::bring_to_scale(Held& h, OptimizerSync& optimizer) {
  const std::vector<Tensor> gradients = optimizer.gradients();
  h.lifted = !h.scale.defined() && state_of(gradients) != h.before;
  if (h.lifted)
    lift(optimizer.optimizer(), gradients, in_use_);
  else if (!h.scale.defined())
    return;  // as they were zeroed
  else if (!is_same(h.scale, in_use_) && !gradients.empty() && !equal(h.scale, in_use_))
    rescale(gradients, h.scale, in_use_);
  h.scale = in_use_;
}

void LossScaling::refuse_capture() {
  check(context().capture == nullptr,
        "loss scaling under Fabric cannot be captured in a graph, as each step replaces the ",
        "scale; use optim::GradScaler, or a precision without scaling (bf16-mixed)");
}

Tensor LossScaling::before_backward(const Tensor& loss) {
  refuse_capture();
  move_to(loss.device());
  used_ = true;
  forget_expired();
  for (Held& h : held_) {
    const auto optimizer = h.optimizer.lock();
    if (h.found.defined() && !h.dropped && h.found.item<float>() != 0) h.dropped = are_zero(optimizer->gradients());
    bring_to_scale(h, *optimizer);
    h.before = state_of(optimizer->gradients());
    h.looked = false;
  }
  return optim::scaled(loss, in_use_);
}

void LossScaling::after_backward() {
  for (Held& h : held_) {
    const auto optimizer = h.optimizer.lock();
    if (!optimizer) continue;
    const std::vector<Tensor> gradients = optimizer->gradients();
    if (state_of(gradients) != h.before) {
      h.scale = in_use_;
    } else if (h.lifted) {
      optim::unscale(optimizer->optimizer(), gradients, in_use_);
      h.scale = Tensor();
    }
    h.lifted = false;
    h.before = 0;
  }
}

// Ranks agree each time, whatever each of them has done to its gradients since the last. An overflow that was found
// before still counts, unless every rank has dropped those gradients: then it was a step that is skipped.
void LossScaling::unscale(OptimizerSync& optimizer) {
  refuse_capture();
  if (const auto gradients = optimizer.gradients(); !gradients.empty()) move_to(gradients.front().device());
  const NoGrad off;
  constexpr float still_there = 2;
  Held& own = held(optimizer);
  const bool dropped = std::exchange(own.dropped, false) && own.found.defined();
  Tensor found = find(own, optimizer);
  if (own.found.defined() && !dropped) found = maximum(found, (own.found != 0.0).to(f32) * still_there);
  optimizer.agree(found);
  if (dropped && own.found.item<float>() != 0 && found.item<float>() != still_there) finish(own);
  Held& looked = held(optimizer);
  looked.found = found;  // only what all ranks know
  looked.looked = true;
}

// What is not finite here. Gradients are looked at once after each backward pass.
Tensor LossScaling::find(Held& own, OptimizerSync& optimizer) const {
  if (own.looked) return own.found.clone();
  const Tensor scale = std::exchange(own.scale, {});
  const std::vector<Tensor> gradients = optimizer.gradients();
  return scale.defined() ? optim::unscale(optimizer.optimizer(), gradients, scale)
                         : look(optimizer.optimizer(), gradients, in_use_.device());
}

optim::StepOutcome LossScaling::step(OptimizerSync& optimizer) {
  unscale(optimizer);
  const Tensor of_half = optimizer.optimizer().half_factor();
  optim::StepOutcome made = optimizer.step(held(optimizer).found);
  optimizer.optimizer().set_half_factor(of_half);  // the gradients are what they were
  Held& own = held(optimizer);
  const Tensor found = own.found;
  const optim::LossScale before = own.finished ? next_ : scale_;
  finish(own);
  before.check_room(found);
  return made;
}

void LossScaling::after_zero_grad(OptimizerSync& optimizer) {
  Held& left = held(optimizer);
  left.dropped = left.found.defined();
  left.looked = false;
  left.scale = Tensor();
  left.before = state_of(optimizer.gradients());
  optimizer.optimizer().set_half_factor({});
}

void LossScaling::finish(Held& own) {
  if (own.finished) end_iteration();
  note(std::exchange(own.found, {}));
  own.finished = true;
  own.looked = own.dropped = false;
  forget_expired();
  if (std::ranges::all_of(held_, &Held::finished)) end_iteration();
}

void LossScaling::note(const Tensor& found) {
  const NoGrad off;
  const Tensor all = found_.defined() ? maximum(found_, found) : found;
  next_ = scale_.after(all);
  found_ = all;
  in_use_ = minimum(scale_.value(), next_.value());
}

void LossScaling::end_iteration() {
  scale_ = next_;
  in_use_ = scale_.value();
  found_ = Tensor();
  for (Held& h : held_) h.finished = false;
}

void LossScaling::forget_findings() {
  for (Held& h : held_) {
    h.found = Tensor();
    h.looked = h.dropped = false;
  }
}

void LossScaling::before_adoption() {
  forget_expired();
  for (Held& h : held_) {
    const auto optimizer = h.optimizer.lock();
    if (const auto gradients = optimizer->gradients(); !gradients.empty()) move_to(gradients.front().device());
    bring_to_scale(h, *optimizer);
  }
}

void LossScaling::after_adoption() {
  forget_findings();
  forget_expired();
  for (Held& h : held_) {
    const auto optimizer = h.optimizer.lock();
    const std::vector<Tensor> gradients = optimizer->gradients();
    if (!gradients.empty()) move_to(gradients.front().device());  // on a rank without data they have come just now
    optim::unscale(optimizer->optimizer(), gradients, in_use_);
    h.scale = Tensor();
    h.lifted = false;
    h.before = 0;
  }
}

}  // namespace loom
