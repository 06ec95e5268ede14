#include <loom/fabric/fabric.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <utility>

#include <loom/accelerators/profile.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/fabric/directory_lock.h>
#include <loom/fabric/gradient_pieces.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>

namespace loom {

namespace {

// Sets a flag for a scope.
class Flagged {
 public:
  explicit Flagged(bool& flag) : flag_(flag), before_(std::exchange(flag, true)) {}
  ~Flagged() { flag_ = before_; }
  Flagged(const Flagged&) = delete;
  Flagged& operator=(const Flagged&) = delete;

 private:
  bool& flag_;
  bool before_;
};

constexpr double clip_epsilon = 1e-6;  // as torch.nn.utils.clip_grad_norm_

// Gradients of 16 bits keep their loss scale until the step.
bool is_scaled(const Tensor& gradient, const OptimizerSync& optimizer) {
  return is_half(gradient.dtype()) && optimizer.optimizer().half_factor().defined();
}

// Where not all gradients are finite nothing is clamped: an overflow must not look like a gradient.
void clip_values(const OptimizerSync& optimizer, double limit, const Tensor& found) {
  const bool host_knows = !found.defined() || found.device().kind == Device::cpu;
  if (host_knows && found.defined() && found.item<float>() != 0) return;
  Tensor kept;  // the limit, or infinity, where the device alone knows
  if (!host_knows) {
    const TensorOptions there(DType::f64, found.device());
    kept = where(found.reshape({}) == 0.0, full({}, limit, there), full({}, INFINITY, there));
  }
  const Tensor factor = optimizer.optimizer().half_factor();
  const Tensor of_scaled = !factor.defined() ? Tensor() : host_knows ? limit / factor : kept / factor;
  for (const Tensor& g : optimizer.gradients()) {
    const Tensor bound = is_scaled(g, optimizer) ? of_scaled : kept;
    if (bound.defined())
      g.copy_(minimum(maximum(g, -bound), bound));
    else
      g.clamp_(-limit, limit);
  }
}

// by: one f64.
void scale_gradients(const OptimizerSync& optimizer, const Tensor& by) {
  std::vector<Tensor> own;
  for (const Tensor& g : optimizer.gradients())
    if (!is_scaled(g, optimizer)) own.push_back(g);
  if (FusedKernels* const kernels = kernels_for(own)) {
    kernels->scale_grads(pieces_of(own), by);
    for (const Tensor& g : own) g.storage()->bump_version();
  } else {
    for (const Tensor& g : own) g.mul_(by);
  }
  const Tensor factor = optimizer.optimizer().half_factor();
  if (factor.defined()) optimizer.optimizer().set_half_factor((factor * by).to(DType::f32));
}

// The norm before. A norm that is not finite is an error, if that is asked for, unless the step will be skipped. On a
// GPU nobody waits: the error comes when the host next does, and gradients that are refused stay as they are.
Tensor clip_norm(const OptimizerSync& optimizer, double limit, const ClipOptions& options, const Tensor& found) {
  Tensor total = optimizer.grad_norm(options.norm_type);
  const TensorOptions like(DType::f64, total.device());
  FusedKernels* const kernels = accelerator(total.device()).fused();
  if (options.error_if_nonfinite && kernels == nullptr) {
    const auto norm = total.item<double>();
    check(std::isfinite(norm) || (found.defined() && found.item<float>() != 0), "clip_gradients: the norm of order ",
          options.norm_type, " of the gradients is ", norm,
          ", so they cannot be scaled; set error_if_nonfinite=false to scale anyway");
    if (std::isfinite(norm) && norm + clip_epsilon > limit)
      scale_gradients(optimizer, full({}, limit / (norm + clip_epsilon), like));
    return total;
  }
  const Tensor one = ones({}, like);
  Tensor factor = minimum(limit / (total + clip_epsilon), one);
  if (options.error_if_nonfinite) {
    kernels->require_finite_norm(found.defined() ? where(found.reshape({}) == 0.0, total, zeros({}, like)) : total);
    factor = where(isfinite(total), factor, one);
  }
  scale_gradients(optimizer, factor);
  return total;
}

// Skipped ones too, and those made past Fabric.
int64_t steps_of(const std::vector<std::weak_ptr<OptimizerSync>>& optimizers) {
  int64_t steps = 0;
  for (const auto& weak : optimizers)
    if (const auto optimizer = weak.lock()) {
      steps += optimizer->optimizer().steps_asked();
    }
  return steps;
}

// The strategy knows the scale of the gradients, if they have one, while a backward pass makes them.
class ToldScale {
 public:
  ToldScale(Strategy& strategy, const Tensor& scale) : strategy_(scale.defined() ? &strategy : nullptr) {
    if (strategy_) strategy_->set_gradient_scale(scale);
  }
  ~ToldScale() {
    if (strategy_) strategy_->set_gradient_scale({});
  }
  ToldScale(const ToldScale&) = delete;
  ToldScale& operator=(const ToldScale&) = delete;

 private:
  Strategy* strategy_;
};

}  // namespace

Fabric::Fabric(FabricOptions options) : options_(std::move(options)) {}

Fabric::~Fabric() = default;

void Fabric::require_launched(const char* what) const {
  check(strategy_ != nullptr, what, ": call fabric.launch(...) first; what uses ranks or devices goes inside");
}

Strategy& Fabric::strategy() {
  require_launched("strategy");
  return *strategy_;
}

Precision& Fabric::precision() {
  require_launched("precision");
  return *precision_;
}

Communicator& Fabric::ranks(const char* what) const {
  require_launched(what);
  return *communicator_;
}

std::shared_ptr<ModuleSync> Fabric::place(std::vector<NamedTensor> parameters, std::vector<NamedTensor> buffers,
                                          bool move) {
  require_launched("setup");
  TensorOptions target;
  target.dtype = precision_->dtype();
  if (move) target.device = device_;
  strategy_->place(parameters, target);
  strategy_->place(buffers, target);
  return strategy_->setup_module(*communicator_, std::move(parameters), std::move(buffers));
}

void Fabric::after_setup() {
  for (const auto& callback : options_.callbacks) callback->on_after_setup(*this);
}

std::shared_ptr<OptimizerSync> Fabric::setup_sync(optim::Optimizer& optimizer) {
  require_launched("setup_optimizers");
  std::shared_ptr<OptimizerSync> sync = strategy_->setup_optimizer(*communicator_, optimizer);
  precision_->setup_optimizer(sync);
  optimizers_.push_back(sync);
  return sync;
}

void Fabric::note_loader(std::weak_ptr<void> loader, StateEntry position) {
  loaders_.emplace_back(std::move(loader), std::move(position));
}

optim::StepOutcome Fabric::step(OptimizerSync& optimizer) {
  const profile::Range range(Activity::fabric, "Fabric.step");
  optim::StepOutcome made = precision_->step(optimizer);
  if (!joining_) precision_->share(*communicator_);
  const auto follow = [this, made] {
    steps_.add(made);
    if (options_.callbacks.empty() || !made) return;  // callbacks are for steps that were made: asking may wait
    for (const auto& callback : options_.callbacks) callback->on_after_optimizer_step(*this);
  };
  if (GraphCapture* const capture = context().capture) {
    capture->before_replay([alive = std::weak_ptr(alive_)] {
      check(!alive.expired(), "DeviceGraph: a Fabric whose step was captured is gone");
    });
    capture->after_replay(follow);
  } else {
    follow();
  }
  return made;
}

void Fabric::backward(const Tensor& loss, const Tensor& gradient, bool retain_graph, bool create_graph) {
  require_launched("backward");
  const profile::Range range(Activity::fabric, "Fabric.backward");
  const Tensor root = precision_->before_backward(loss);
  const ToldScale told(*strategy_, precision_->gradient_scale());
  try {
    const Flagged inside(*inside_backward_);
    strategy_->backward([&] { root.backward(gradient, retain_graph, create_graph); });
  } catch (...) {
    precision_->after_backward();  // some gradients have been written
    throw;
  }
  precision_->after_backward();
  steps_at_backward_ = steps_of(optimizers_);
}

// Ranks accumulate different ones until they are synchronised, and a checkpoint holds nothing of one rank. It is no
// error: a program that is told to end saves what it can.
void Fabric::warn_of_gradients() {
  if (!is_global_zero() || warned_of_gradients_ || steps_at_backward_ != steps_of(optimizers_)) return;
  const NoGrad off;
  for (const auto& weak : optimizers_)
    if (const auto optimizer = weak.lock(); optimizer && !warned_of_gradients_)
      warned_of_gradients_ = std::ranges::any_of(optimizer->optimizer().gradients(),
                                                 [](const Tensor& g) { return any(g != 0.0).item<bool>(); });
  if (warned_of_gradients_)
    std::cerr << "loom: save: gradients are not saved, and some have been accumulated since the last step: what is "
                 "resumed from the checkpoint lacks them; save after a step\n";
}

void Fabric::zero_grad(OptimizerSync& optimizer, bool set_to_none) {
  optimizer.optimizer().zero_grad(set_to_none);
  precision_->after_zero_grad(optimizer);
}

Tensor Fabric::clip(OptimizerSync& optimizer, const ClipOptions& options) {
  check(!(options.clip_val && options.max_norm),
        "clip_gradients: only one of clip_val and max_norm can be set; each is an algorithm of its own");
  check(options.clip_val || options.max_norm, "clip_gradients: set clip_val or max_norm");
  const double limit = options.clip_val ? *options.clip_val : *options.max_norm;
  check(limit >= 0, "clip_gradients: ", options.clip_val ? "clip_val" : "max_norm", " is ", limit,
        ", expected 0 or more");  // a negative one would turn gradients round
  check(options.norm_type > 0, "clip_gradients: norm_type is ", options.norm_type, ", expected more than 0");
  const profile::Range range(Activity::fabric, "Fabric.clip_gradients");
  const NoGrad off;
  precision_->before_clip(optimizer);
  const Tensor found = precision_->found_inf(optimizer);
  if (!options.clip_val) return clip_norm(optimizer, limit, options, found);
  clip_values(optimizer, limit, found);
  return zeros({}, DType::f64);
}

void Fabric::print_line(const std::string& line) { std::cout << line + "\n" << std::flush; }

void Fabric::log(const std::string& name, double value, std::optional<int64_t> step) {
  log_dict({{name, value}}, step);
}

void Fabric::log(const std::string& name, const Tensor& value, std::optional<int64_t> step) {
  check(value.numel() == 1, "log: the metric '", name, "' has shape ", value.shape(), "; expected a single element");
  if (options_.loggers.empty() || !is_global_zero()) return;  // reading a device's value waits for it
  log(name, value.item<double>(), step);
}

void Fabric::log_dict(const Metrics& metrics, std::optional<int64_t> step) {
  if (!is_global_zero()) return;
  for (const auto& logger : options_.loggers) logger->log_metrics(metrics, step);
}

uint64_t Fabric::seed_everything(uint64_t seed) { return loom::seed_everything(seed); }

uint64_t seed_everything(uint64_t seed) {
  manual_seed(seed);
  return seed;
}

}  // namespace loom
