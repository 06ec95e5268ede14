#include <loom/nn/optim/loss_scale.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <loom/accelerators/accelerator.h>
#include <loom/autograd/ops.h>
#include <loom/nn/optim/step_pieces.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw.h>

namespace loom::optim {

namespace {

constexpr double smallest_normal = 0x1p-126;  // its reciprocal is in f32 still

void check_scale(const char* what, double scale) {
  check(scale >= smallest_normal && scale <= std::numeric_limits<float>::max(), "GradScaler: ", what, " is ", scale,
        ", expected a number from 2^-126 to the largest of f32");
}

void check_options(const GradScalerOptions& o) {
  check_scale("init_scale", o.init_scale);
  check(o.growth_factor > 1 && std::isfinite(o.growth_factor),
        "GradScaler: the growth factor must be > 1 and finite, got ", o.growth_factor);
  check(o.backoff_factor > 0 && o.backoff_factor < 1, "GradScaler: the backoff factor must be between 0 and 1, got ",
        o.backoff_factor);
  check(o.growth_interval >= 1, "GradScaler: growth_interval is ", o.growth_interval, ", expected at least 1");
  check(o.hysteresis >= 1, "GradScaler: hysteresis is ", o.hysteresis, ", expected at least 1");
  check(o.min_scale >= 0 && o.min_scale <= o.init_scale, "GradScaler: min_scale is ", o.min_scale,
        ", expected a number from 0 to init_scale, which is ", o.init_scale);
}

double smallest(const GradScalerOptions& o) { return std::max(o.min_scale, smallest_normal); }

// Whether x has no gaps, in whatever order its dimensions lie (a gradient in a bucket lies as its parameter does).
bool is_dense(const Tensor& x) {
  int64_t last = 0;
  for (int d = 0; d < x.dim(); ++d) last += (x.size(d) - 1) * x.strides()[d];
  return x.numel() == 0 || last == x.numel() - 1;
}

}  // namespace

LossScale::LossScale(const GradScalerOptions& options) : options_(options) {
  check_options(options);
  scale_ = full({}, options.init_scale, f32);
  tracker_ = full({}, 0, i64);
  hysteresis_ = full({}, static_cast<double>(options.hysteresis), i64);
}

void LossScale::set(double scale) {
  check_scale("the new scale", scale);
  scale_ = full({}, scale, TensorOptions(f32, scale_.device()));
}

void LossScale::to(Device device) {
  const OutsideCapture once;
  for (Tensor* const x : {&scale_, &tracker_, &hysteresis_}) *x = raw::to_device(*x, device);
}

void LossScale::become(const LossScale& other) {
  if (scale_.device().kind == Device::cpu || scale_.device() != other.scale_.device()) {
    *this = other;
    return;
  }
  raw::copy_into(scale_, other.scale_);
  raw::copy_into(tracker_, other.tracker_);
  raw::copy_into(hysteresis_, other.hysteresis_);
}

Tensor LossScale::shrinks(const Tensor& found) const { return logical_and(found != 0.0, hysteresis_ <= 1); }

void LossScale::check_room(const Tensor& found) const {
  if (!options_.raise_at_min_scale || options_.policy == ScalePolicy::fixed) return;
  const NoGrad off;
  if (const double least = smallest(options_); scale_.item<double>() <= least)
    check(!shrinks(found).item<bool>(), "GradScaler: an overflow at the smallest loss scale, ", least,
          ": the gradients are not finite whatever the scale");
}

// Where the scale changes it is by its value until now; it never grows beyond what f32 holds.
LossScale LossScale::after(const Tensor& found) const {
  LossScale out = *this;
  if (options_.policy == ScalePolicy::fixed) return out;
  const NoGrad off;
  const bool deepspeed = options_.policy == ScalePolicy::deepspeed;
  const Tensor bad = found != 0.0, good = logical_not(bad);
  const Tensor shrinks = this->shrinks(found);
  // PyTorch counts this iteration, DeepSpeed those before it.
  const Tensor run = deepspeed ? tracker_ : tracker_ + 1;
  const Tensor due =
      deepspeed ? logical_and(run > 0, remainder(run, options_.growth_interval) == 0) : run >= options_.growth_interval;
  const Tensor larger = scale_ * options_.growth_factor;
  const Tensor grows = logical_and(good, due);
  const Tensor least = full({}, smallest(options_), TensorOptions(f32, scale_.device()));
  const Tensor smaller = minimum(maximum(scale_ * options_.backoff_factor, least), scale_);  // may lie below already
  const Tensor reset = deepspeed ? bad : logical_or(bad, grows);
  const Tensor refill = options_.consecutive_hysteresis ? good : grows;
  out.hysteresis_ =
      where(refill, options_.hysteresis, where(logical_and(bad, logical_not(shrinks)), hysteresis_ - 1, hysteresis_));
  out.tracker_ = where(reset, int64_t{0}, tracker_ + 1);
  out.scale_ = where(shrinks, smaller, where(logical_and(grows, isfinite(larger)), larger, scale_));
  return out;
}

State LossScale::state_dict() const {
  return {{"scale", scale_}, {"growth_tracker", tracker_}, {"hysteresis", hysteresis_}};
}

void LossScale::check_state_dict(const State& values) const {
  check(!values.empty(), "GradScaler: the state is empty; it was saved with scaling disabled");
  for (const char* const name : {"scale", "growth_tracker", "hysteresis"}) {
    const auto found = values.find(name);
    check(found != values.end(), "GradScaler: the state has no '", name, "'");
    check(found->second.numel() == 1, "GradScaler: '", name, "' has shape ", found->second.shape(),
          ", expected one number");
  }
  check_scale("the saved scale", values.at("scale").item<double>());
}

void LossScale::load_state_dict(const State& values) {
  check_state_dict(values);
  const Device device = scale_.device();
  const auto own = [&](const char* name, DType dtype) {
    return raw::to_device(raw::reshape(raw::cast(values.at(name), dtype), {}), device).clone();
  };
  if (options_.policy != ScalePolicy::fixed) scale_ = own("scale", f32);
  tracker_ = own("growth_tracker", i64);
  hysteresis_ = own("hysteresis", i64);
}

Tensor scaled(const Tensor& loss, const Tensor& scale) { return (is_half(loss.dtype()) ? loss.to(f32) : loss) * scale; }

Tensor unscale(Optimizer& optimizer, std::span<const Tensor> gradients, const Tensor& scale) {
  const NoGrad off;
  const Tensor factor = (1.0 / scale.to(f64)).to(f32);  // as PyTorch: the reciprocal of most scales is not exact
  Tensor found = full({}, 0, TensorOptions(f32, scale.device()));
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
  optimizer.set_half_factor(factor);
  return found;
}

}  // namespace loom::optim
