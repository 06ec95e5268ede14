#include <loom/nn/optim/grad_scaler.h>

#include <cmath>

#include <loom/accelerators/accelerator.h>
#include <loom/autograd/ops.h>
#include <loom/nn/optim/step_pieces.h>
#include <loom/tensor/raw.h>

namespace loom::optim {

namespace {

void check_options(const GradScalerOptions& o) {
  check(o.init_scale > 0 && std::isfinite(o.init_scale), "GradScaler: init_scale is ", o.init_scale,
        ", expected a positive number");
  check(o.growth_factor > 1, "GradScaler: the growth factor must be > 1, got ", o.growth_factor);
  check(o.backoff_factor > 0 && o.backoff_factor < 1, "GradScaler: the backoff factor must be between 0 and 1, got ",
        o.backoff_factor);
  check(o.growth_interval >= 1, "GradScaler: growth_interval is ", o.growth_interval, ", expected at least 1");
  check(o.hysteresis >= 1, "GradScaler: hysteresis is ", o.hysteresis, ", expected at least 1");
  check(o.min_scale >= 0, "GradScaler: min_scale is ", o.min_scale, ", expected 0 or more");
}

// Whether x has no gaps, in whatever order its dimensions lie (a gradient in a bucket lies as its parameter does).
bool is_dense(const Tensor& x) {
  int64_t last = 0;
  for (int d = 0; d < x.dim(); ++d) last += (x.size(d) - 1) * x.strides()[d];
  return x.numel() == 0 || last == x.numel() - 1;
}

// Divides gradients by the scale and notes what is not finite in `found`.
void unscale_all(std::span<const Tensor> gradients, const Tensor& factor, const Tensor& found) {
  std::vector<UpdatePiece> pieces;
  pieces.reserve(gradients.size());
  for (const Tensor& g : gradients) {
    check(g.device() == found.device(), "unscale_: the loss was on ", found.device(), ", a gradient is on ",
          g.device());
    check(is_dense(g), "unscale_: a gradient of shape ", g.shape(), " has strides ", g.strides(),
          ", expected one without gaps");
    UpdatePiece& piece = pieces.emplace_back();
    piece.numel = g.numel();
    piece.grad = dense(g);
    if (!is_half(g.dtype())) g.storage()->bump_version();
  }
  accelerator(found.device()).unscale(pieces, factor, found);
}

}  // namespace

GradScaler::GradScaler(const GradScalerOptions& options) : options_(options) {
  check_options(options);
  scale_ = full({}, options.init_scale, f32);
  tracker_ = full({}, 0, i64);
  hysteresis_ = full({}, static_cast<double>(options.hysteresis), i64);
}

void GradScaler::require_scale(const char* call) const {
  check(used_, "GradScaler: attempted ", call,
        " but nothing has been scaled; is scaler.scale(loss) missing earlier in the iteration?");
}

Tensor GradScaler::scale(const Tensor& loss) {
  if (!options_.enabled) return loss;
  used_ = true;
  for (Tensor* const x : {&scale_, &tracker_, &hysteresis_}) *x = raw::to_device(*x, loss.device());
  return (is_half(loss.dtype()) ? loss.to(f32) : loss) * scale_;
}

void GradScaler::unscale_(Optimizer& optimizer) { unscale_(optimizer, optimizer.gradients(), {}); }

void GradScaler::unscale_(Optimizer& optimizer, std::span<const Tensor> gradients, const Agree& agree) {
  if (!options_.enabled) return;
  require_scale("unscale_");
  PerOptimizer& state = optimizers_[&optimizer];
  check(state.stage != Stage::unscaled,
        "unscale_() has already been called on this optimizer since the last update().");
  check(state.stage != Stage::stepped, "unscale_() is being called after step().");
  const NoGrad off;
  const Tensor factor = (1.0 / scale_.to(f64)).to(f32);  // as PyTorch: the reciprocal of most scales is not exact
  state.found = full({}, 0, TensorOptions(f32, scale_.device()));
  unscale_all(gradients, factor, state.found);
  if (agree) agree(state.found);
  optimizer.set_half_factor(factor);
  state.stage = Stage::unscaled;
}

bool GradScaler::step(Optimizer& optimizer) {
  if (!options_.enabled) {
    optimizer.step();
    return true;
  }
  require_scale("step");
  if (optimizers_[&optimizer].stage == Stage::ready) unscale_(optimizer);
  note_stepped(optimizer);
  return optimizer.step_unless(optimizers_[&optimizer].found);
}

void GradScaler::note_stepped(const Optimizer& optimizer) {
  Stage& stage = optimizers_[&optimizer].stage;
  check(stage != Stage::stepped, "step() has already been called since the last update().");
  stage = Stage::stepped;
}

void GradScaler::again(const Optimizer& optimizer) {
  PerOptimizer& state = optimizers_[&optimizer];
  if (state.found.defined())
    state.earlier = state.earlier.defined() ? maximum(state.earlier, state.found) : state.found;
  state.found = Tensor();
  state.stage = Stage::ready;
}

void GradScaler::update(std::optional<double> new_scale) {
  if (!options_.enabled) return;
  require_scale("update");
  const NoGrad off;
  if (new_scale) {
    check(*new_scale > 0 && std::isfinite(*new_scale), "GradScaler: the new scale is ", *new_scale,
          ", expected a positive number");
    scale_ = full({}, *new_scale, TensorOptions(f32, scale_.device()));
  } else {
    Tensor found;
    for (const auto& [optimizer, state] : optimizers_)
      for (const Tensor& one : {state.found, state.earlier})
        if (one.defined()) found = found.defined() ? maximum(found, one) : one;
    check(found.defined(), "No inf checks were recorded prior to update.");
    adapt(found);
  }
  optimizers_.clear();
}

// Where the scale changes it is by its value until now; it never grows beyond what f32 holds.
void GradScaler::adapt(const Tensor& found) {
  if (options_.policy == ScalePolicy::fixed) return;
  const bool deepspeed = options_.policy == ScalePolicy::deepspeed;
  const Tensor bad = found != 0.0, good = logical_not(bad);
  const Tensor shrinks = logical_and(bad, hysteresis_ <= 1);
  if (options_.raise_at_min_scale && scale_.item<double>() <= options_.min_scale)
    check(!shrinks.item<bool>(), "GradScaler: an overflow at the smallest loss scale, ", options_.min_scale,
          ": the gradients are not finite whatever the scale");
  // PyTorch counts this iteration, DeepSpeed those before it.
  const Tensor run = deepspeed ? tracker_ : tracker_ + 1;
  const Tensor due =
      deepspeed ? logical_and(run > 0, remainder(run, options_.growth_interval) == 0) : run >= options_.growth_interval;
  const Tensor larger = scale_ * options_.growth_factor;
  const Tensor grows = logical_and(good, due);
  const Tensor smaller = maximum(scale_ * options_.backoff_factor, full({}, options_.min_scale, f32));
  const Tensor reset = deepspeed ? bad : logical_or(bad, grows);
  const Tensor refill = options_.consecutive_hysteresis ? good : grows;
  hysteresis_ =
      where(refill, options_.hysteresis, where(logical_and(bad, logical_not(shrinks)), hysteresis_ - 1, hysteresis_));
  tracker_ = where(reset, int64_t{0}, tracker_ + 1);
  scale_ = where(shrinks, smaller, where(logical_and(grows, isfinite(larger)), larger, scale_));
}

Tensor GradScaler::found_inf(const Optimizer& optimizer) const {
  const auto found = optimizers_.find(&optimizer);
  return found == optimizers_.end() ? Tensor() : found->second.found;
}

bool GradScaler::unscaled(const Optimizer& optimizer) const {
  const auto found = optimizers_.find(&optimizer);
  return found != optimizers_.end() && found->second.stage != Stage::ready;
}

bool GradScaler::stepped(const Optimizer& optimizer) const {
  const auto found = optimizers_.find(&optimizer);
  return found != optimizers_.end() && found->second.stage == Stage::stepped;
}

double GradScaler::get_scale() const { return options_.enabled ? scale_.item<double>() : 1; }

State GradScaler::state_dict() const {
  if (!options_.enabled) return {};
  return {{"scale", scale_}, {"growth_tracker", tracker_}, {"hysteresis", hysteresis_}};
}

void GradScaler::check_state_dict(const State& values) const {
  if (!options_.enabled) return;
  check(!values.empty(), "GradScaler: the state is empty; it was saved with scaling disabled");
  for (const char* const name : {"scale", "growth_tracker", "hysteresis"}) {
    const auto found = values.find(name);
    check(found != values.end(), "GradScaler: the state has no '", name, "'");
    check(found->second.numel() == 1, "GradScaler: '", name, "' has shape ", found->second.shape(),
          ", expected one number");
  }
  const auto scale = values.at("scale").item<double>();
  check(scale > 0 && std::isfinite(scale), "GradScaler: the saved scale is ", scale, ", expected a positive number");
}

void GradScaler::load_state_dict(const State& values) {
  check_state_dict(values);
  if (!options_.enabled) return;
  const Device device = scale_.device();
  const auto own = [&](const char* name, DType dtype) {
    return raw::to_device(raw::reshape(raw::cast(values.at(name), dtype), {}), device).clone();
  };
  scale_ = own("scale", f32);
  tracker_ = own("growth_tracker", i64);
  hysteresis_ = own("hysteresis", i64);
}

}  // namespace loom::optim
