#include <loom/fabric/loss_scaling.h>

#include <algorithm>
#include <utility>

#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

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

bool is_same(const Tensor& a, const Tensor& b) { return a.body_pointer() == b.body_pointer(); }

// Exact where scales are powers of two.
void rescale(const optim::Optimizer& optimizer, const Tensor& from, const Tensor& to) {
  const NoGrad off;
  const Tensor ratio = to.to(DType::f64) / from.to(DType::f64);
  for (Tensor g : optimizer.gradients()) g.mul_(ratio);
}

}  // namespace

void LossScaling::forget_expired() {
  std::erase_if(held_, [](const Held& h) { return h.optimizer.expired(); });
}

void LossScaling::setup_optimizer(const std::shared_ptr<OptimizerSync>& optimizer) {
  forget_expired();
  held_.push_back({optimizer, 0, {}, {}, false});
}

LossScaling::Held& LossScaling::held(const OptimizerSync& optimizer) {
  const auto found = std::ranges::find_if(held_, [&](const Held& h) { return h.optimizer.lock().get() == &optimizer; });
  check(found != held_.end(), "loss scaling: the optimizer was not set up by this Fabric");
  return *found;
}

Tensor LossScaling::before_backward(const Tensor& loss) {
  if (in_use_.device() != loss.device()) {
    scale_.to(loss.device());
    next_.to(loss.device());
    in_use_ = raw::to_device(in_use_, loss.device());
    if (found_.defined()) found_ = raw::to_device(found_, loss.device());
  }
  for (Held& h : held_)
    if (const auto optimizer = h.optimizer.lock()) {
      if (h.scale.defined() && !is_same(h.scale, in_use_)) rescale(optimizer->optimizer(), h.scale, in_use_);
      if (h.scale.defined()) h.scale = in_use_;
      h.before = state_of_gradients(optimizer->optimizer());
    }
  return optim::scaled(loss, in_use_);
}

void LossScaling::after_backward() {
  for (Held& h : held_)
    if (const auto optimizer = h.optimizer.lock())
      if (state_of_gradients(optimizer->optimizer()) != h.before) h.scale = in_use_;
}

void LossScaling::unscale(OptimizerSync& optimizer) {
  Held& own = held(optimizer);
  if (own.found.defined()) return;
  const Tensor scale = std::exchange(own.scale, {});
  const Tensor found = optim::unscale(optimizer.optimizer(), optimizer.gradients(), scale.defined() ? scale : in_use_);
  optimizer.agree(found);
  own.found = found;  // only what all ranks know
}

bool LossScaling::finite(const OptimizerSync& optimizer) {
  const Tensor& found = held(optimizer).found;
  return !found.defined() || found.item<float>() == 0;
}

bool LossScaling::step(OptimizerSync& optimizer) {
  unscale(optimizer);
  const bool steps = finite(optimizer);
  if (steps)
    optimizer.step();
  else
    optimizer.optimizer().skip_step();
  finish(held(optimizer));
  return steps;
}

void LossScaling::after_zero_grad(OptimizerSync& optimizer) {
  Held& own = held(optimizer);
  if (own.found.defined()) finish(own);  // looked at and dropped: as a step that is skipped
  own.scale = Tensor();
}

void LossScaling::finish(Held& own) {
  if (own.finished) end_iteration();
  note(std::exchange(own.found, {}));
  own.finished = true;
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

void LossScaling::forget_gradients() {
  for (Held& h : held_) h.found = h.scale = Tensor();
}

optim::State LossScaling::state_dict() const {
  optim::State out = scale_.state_dict();
  if (!found_.defined()) return out;
  std::vector<int64_t> finished;
  for (const Held& h : held_)
    if (!h.optimizer.expired()) finished.push_back(h.finished ? 1 : 0);
  out["found_inf"] = found_;
  out["finished"] = from_vector(finished, {static_cast<int64_t>(finished.size())}, DType::i64);
  return out;
}

void LossScaling::check_state_dict(const optim::State& saved) const {
  scale_.check_state_dict(saved);
  const auto found = saved.find("found_inf"), finished = saved.find("finished");
  check((found == saved.end()) == (finished == saved.end()), "loss scaling: the state has one of 'found_inf' and ",
        "'finished', expected both or none");
  if (found == saved.end()) return;
  check(found->second.numel() == 1 && finished->second.dim() == 1, "loss scaling: 'found_inf' has shape ",
        found->second.shape(), ", 'finished' ", finished->second.shape(), "; expected one number, and one dimension");
}

void LossScaling::load_state_dict(const optim::State& saved) {
  check_state_dict(saved);
  scale_.load_state_dict(saved);
  next_ = scale_;
  end_iteration();
  if (!saved.contains("found_inf")) return;
  forget_expired();
  note(raw::to_device(raw::reshape(raw::cast(saved.at("found_inf"), DType::f32), {}), in_use_.device()).clone());
  const std::vector<int64_t> finished = saved.at("finished").to_vector<int64_t>();
  if (finished.size() != held_.size()) return end_iteration();  // of other optimizers
  for (size_t i = 0; i < finished.size(); ++i) held_[i].finished = finished[i] != 0;
}

}  // namespace loom
