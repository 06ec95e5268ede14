#include <loom/fabric/loss_scaling.h>

#include <algorithm>

namespace loom {

namespace {

// Changes whenever a backward pass has added to a gradient.
uint64_t state_of_gradients(const optim::Optimizer& optimizer) {
  uint64_t hash = 0;
  const auto mix = [&hash](uint64_t value) { hash = (hash ^ value) * 0x9E3779B97F4A7C15u; };
  for (const optim::Group& group : optimizer.param_groups())
    for (const NamedTensor& p : group.parameters) {
      const Tensor& grad = p.tensor.grad();
      mix(grad.defined() ? reinterpret_cast<uintptr_t>(grad.body_pointer().get()) + grad.version() : 0);
    }
  return hash;
}

bool has_gradients(const optim::Optimizer& optimizer) {
  for (const optim::Group& group : optimizer.param_groups())
    for (const NamedTensor& p : group.parameters)
      if (p.tensor.grad().defined()) return true;
  return false;
}

}  // namespace

void LossScaling::setup_optimizer(const std::shared_ptr<OptimizerSync>& optimizer) {
  std::erase_if(held_, [](const Held& h) { return h.optimizer.expired(); });
  held_.push_back({optimizer});
}

LossScaling::Held& LossScaling::held(const OptimizerSync& optimizer) {
  const auto found = std::ranges::find_if(held_, [&](const Held& h) { return h.optimizer.lock().get() == &optimizer; });
  check(found != held_.end(), "loss scaling: the optimizer was not set up by this Fabric");
  return *found;
}

Tensor LossScaling::before_backward(const Tensor& loss) {
  for (Held& h : held_)
    if (const auto optimizer = h.optimizer.lock()) h.before = state_of_gradients(optimizer->optimizer());
  return scaler_.scale(loss);
}

void LossScaling::after_backward() {
  for (Held& h : held_)
    if (const auto optimizer = h.optimizer.lock())
      h.scaled = h.scaled || state_of_gradients(optimizer->optimizer()) != h.before;
}

bool LossScaling::unscale(OptimizerSync& optimizer) {
  optim::Optimizer& own = optimizer.optimizer();
  if (scaler_.stepped(own)) scaler_.again(own);
  if (!scaler_.unscaled(own))
    scaler_.unscale_(own, optimizer.gradients(), [&](const Tensor& found) { optimizer.agree(found); });
  return scaler_.found_inf(own).item<float>() == 0;
}

bool LossScaling::step(OptimizerSync& optimizer) {
  const bool finite = unscale(optimizer);
  scaler_.note_stepped(optimizer.optimizer());
  if (finite)
    optimizer.step();
  else
    optimizer.optimizer().skip_step();
  held(optimizer).scaled = false;
  stepped_ = true;
  update_if_settled();
  return finite;
}

void LossScaling::after_zero_grad(OptimizerSync& optimizer) {
  held(optimizer).scaled = false;
  const optim::Optimizer& own = optimizer.optimizer();
  if (scaler_.unscaled(own) && !scaler_.stepped(own)) scaler_.again(own);  // clipped, but not stepped with
  update_if_settled();
}

// Gradients of another scale must not meet: the scale waits for all that hold some, and changes once for all.
void LossScaling::update_if_settled() {
  if (!stepped_) return;
  for (const Held& h : held_)
    if (const auto optimizer = h.optimizer.lock(); optimizer && h.scaled && has_gradients(optimizer->optimizer()))
      return;
  scaler_.update();
  stepped_ = false;
}

}  // namespace loom
