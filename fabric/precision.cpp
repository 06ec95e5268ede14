#include <loom/fabric/precision.h>

#include <array>

#include <loom/autograd/autocast.h>
#include <loom/tensor/context.h>

namespace loom {

namespace {

// An f16 precision without a scaling of the user's has the usual one.
std::optional<optim::GradScalerOptions> scaling_of(DType half, const std::optional<optim::GradScalerOptions>& given) {
  if (given || half != DType::f16) return given;
  return optim::GradScalerOptions{};
}

struct Row {
  std::string_view name, alias;
  std::shared_ptr<Precision> (*make)();
};
template <class P, DType half>
std::shared_ptr<Precision> make_half() {
  return std::make_shared<P>(half);
}
constexpr std::array<Row, 7> rows = {{
    {"64-true", "64", [] { return std::shared_ptr<Precision>(std::make_shared<DoublePrecision>()); }},
    {"32-true", "32", [] { return std::shared_ptr<Precision>(std::make_shared<FullPrecision>()); }},
    {"16-true", {}, make_half<HalfPrecision, DType::f16>},
    {"bf16-true", {}, make_half<HalfPrecision, DType::bf16>},
    {"16-mixed", "16", make_half<MixedPrecision, DType::f16>},
    {"bf16-mixed", "bf16", make_half<MixedPrecision, DType::bf16>},
    {"fp8-mixed", {}, [] { return std::shared_ptr<Precision>(std::make_shared<Fp8Precision>()); }},
}};

}  // namespace

std::shared_ptr<Precision> make_precision(std::string_view name) {
  std::string names;
  for (const Row& row : rows) {
    if (!name.empty() && (name == row.name || name == row.alias)) return row.make();
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  fail("unknown precision '", name, "'; available: ", names);
}

std::string precision_warning(std::string_view name) {
  for (const Row& row : rows)
    if (name == row.alias && row.name.ends_with("mixed"))
      return str("precision '", name, "' is supported for historical reasons but its usage is discouraged; say '",
                 row.name, "'");
  return {};
}

std::shared_ptr<void> DoublePrecision::forward_scope() const {
  return std::make_shared<InitScope>(DType::f64, std::nullopt, false);
}

ScaledPrecision::ScaledPrecision(DType half, const std::optional<optim::GradScalerOptions>& scaling) : half_(half) {
  check(is_half(half), "precision: expected f16 or bf16, got ", half);
  check(!scaling || half == DType::f16, "precision: a loss scaling is for f16 alone; bf16 has the range of f32");
  if (scaling && scaling->enabled) scaling_.emplace(*scaling);
}

void ScaledPrecision::setup_optimizer(const std::shared_ptr<OptimizerSync>& optimizer) {
  if (scaling_) scaling_->setup_optimizer(optimizer);
}
void ScaledPrecision::before_clip(OptimizerSync& optimizer) {
  if (scaling_) scaling_->unscale(optimizer);
}
Tensor ScaledPrecision::found_inf(OptimizerSync& optimizer) {
  return scaling_ ? scaling_->found_inf(optimizer) : Tensor();
}
optim::StepOutcome ScaledPrecision::step(OptimizerSync& optimizer) {
  return scaling_ ? scaling_->step(optimizer) : Precision::step(optimizer);
}
void ScaledPrecision::after_zero_grad(OptimizerSync& optimizer) {
  if (scaling_) scaling_->after_zero_grad(optimizer);
}
void ScaledPrecision::before_adoption() {
  if (scaling_) scaling_->before_adoption();
}
void ScaledPrecision::after_adoption() {
  if (scaling_) scaling_->after_adoption();
}
Tensor ScaledPrecision::before_backward(const Tensor& loss) {
  return scaling_ ? scaling_->before_backward(loss) : loss;
}
void ScaledPrecision::after_backward() {
  if (scaling_) scaling_->after_backward();
}

StateDict ScaledPrecision::state_dict() const { return scaling_ ? StateDict(scaling_->state_dict()) : StateDict(); }
void ScaledPrecision::check_state_dict(const StateDict& saved) const {
  if (scaling_) scaling_->check_state_dict(saved.tensors);
}
void ScaledPrecision::load_state_dict(const StateDict& saved) {
  if (scaling_) scaling_->load_state_dict(saved.tensors);
}

MixedPrecision::MixedPrecision(DType half, const std::optional<optim::GradScalerOptions>& scaling)
    : ScaledPrecision(half, scaling_of(half, scaling)) {}

std::shared_ptr<void> MixedPrecision::forward_scope() const { return std::make_shared<Autocast>(half()); }

Fp8Precision::Fp8Precision(const Fp8Options& options)
    : ScaledPrecision(DType::bf16, {}), layers_(std::make_shared<Fp8Layers>(options)) {}

void Fp8Precision::check_device(Device device) const {
  const std::string lacks = fp8_obstacle(device);
  check(lacks.empty(), "the precision 'fp8-mixed' needs ", lacks, "; 'bf16-mixed' runs everywhere");
}

namespace {

struct Fp8Forward {
  explicit Fp8Forward(const std::shared_ptr<Fp8Layers>& layers) : autocast(DType::bf16), region(layers) {}
  Autocast autocast;
  Fp8Region region;
};

}  // namespace

std::shared_ptr<void> Fp8Precision::forward_scope() const { return std::make_shared<Fp8Forward>(layers_); }

void Fp8Precision::share(Communicator& ranks) {
  if (ranks.size() > 1) layers_->merge([&](const Tensor& x) { ranks.all_reduce(x, ReduceOp::max).wait(); });
}

HalfPrecision::HalfPrecision(DType half, const std::optional<optim::GradScalerOptions>& scaling)
    : ScaledPrecision(half, scaling_of(half, scaling)) {}

std::shared_ptr<void> HalfPrecision::forward_scope() const {
  return std::make_shared<InitScope>(half(), std::nullopt, false);
}

InitScope::InitScope(std::optional<DType> dtype, std::optional<Device> device, bool empty)
    : context_(context()),
      dtype_(context_.default_dtype),
      device_(context_.default_device),
      skip_init_(context_.skip_init) {
  if (dtype) context_.default_dtype = *dtype;
  if (device) context_.default_device = *device;
  context_.skip_init = skip_init_ || empty;
}

InitScope::~InitScope() {
  context_.default_dtype = dtype_;
  context_.default_device = device_;
  context_.skip_init = skip_init_;
}

}  // namespace loom
