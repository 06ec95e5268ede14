#include <loom/fabric/strategy.h>

#include <array>

#include <loom/accelerators/fused.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/fabric/gradient_pieces.h>
#include <loom/fabric/state_broadcast.h>
#include <loom/fabric/strategies/ddp.h>
#include <loom/fabric/strategies/single.h>
#include <loom/tensor/create.h>

namespace loom {

namespace {

struct Row {
  std::string_view name;
  std::shared_ptr<Strategy> (*make)();
};
constexpr std::array<Row, 3> rows = {{
    {"single", [] { return std::shared_ptr<Strategy>(std::make_shared<SingleStrategy>()); }},
    {"ddp", [] { return std::shared_ptr<Strategy>(std::make_shared<DdpStrategy>()); }},
    {"ddp_find_unused_parameters_true",
     [] {
       return std::shared_ptr<Strategy>(std::make_shared<DdpStrategy>(DdpOptions{.find_unused_parameters = true}));
     }},
}};

}  // namespace

std::string strategy_names() {
  std::string names = "auto";
  for (const Row& row : rows) names += ", " + std::string(row.name);
  return names;
}

std::shared_ptr<Strategy> make_strategy(std::string_view name, int world_size) {
  if (name == "auto") return make_strategy(world_size > 1 ? "ddp" : "single", world_size);
  for (const Row& row : rows) {
    if (row.name != name) continue;
    check(name != "single" || world_size == 1, "strategy 'single' runs on one rank, there are ", world_size,
          "; use 'ddp' or 'auto'");
    return row.make();
  }
  fail("unknown strategy '", name, "'; available: ", strategy_names());
}

std::unique_ptr<OptimizerSync> Strategy::setup_optimizer(Communicator& world, optim::Optimizer& optimizer) {
  return std::make_unique<OptimizerSync>(world, optimizer);
}

std::vector<Tensor> OptimizerSync::gradients() const { return optimizer_->gradients(); }

optim::StepOutcome OptimizerSync::step(const Tensor& found) {
  if (found.defined()) return optimizer_->step_unless(found);
  optimizer_->step();
  return true;
}

void OptimizerSync::agree(const Tensor& found) const {
  if (join_) join_->announce(*this, 1);
  world_->all_reduce(found, ReduceOp::max).wait();
}

void OptimizerSync::shadow(int) {
  Device device;  // that of the finding
  for (const optim::Group& group : optimizer_->param_groups())
    if (!group.parameters.empty()) device = group.parameters.front().tensor.device();
  const Tensor nothing = zeros({1}, {DType::f32, device});
  world_->all_reduce(nothing, ReduceOp::max).wait();
}

void OptimizerSync::adopt(int rank) { broadcast_state(*world_, state_entry(StateEntry(*optimizer_)), rank); }

// In f64 whatever the dtype: the norm of many small parts loses nothing. A norm of norms, which nobody waits for; where
// the device has it, one kernel for all.
Tensor OptimizerSync::grad_norm(double p) const {
  const NoGrad off;
  const Tensor& of_half = optimizer_->half_factor();
  const std::vector<Tensor> all = gradients();
  if (FusedKernels* const kernels = p == 2 ? kernels_for(all) : nullptr) {
    Tensor total = empty({}, {DType::f64, all[0].device()});
    const Tensor factor = of_half.defined() ? of_half.to(DType::f32) : Tensor();
    kernels->grad_norm(total, pieces_of(all), factor.defined() ? View(factor) : View());
    return total;
  }
  std::vector<Tensor> norms;
  norms.reserve(all.size());
  for (const Tensor& g : all) {
    const Tensor one = norm(g.to(DType::f64), p);
    norms.push_back(of_half.defined() && is_half(g.dtype()) ? one * of_half.to(DType::f64) : one);
  }
  return norms.empty() ? zeros({}, DType::f64) : norm(stack(norms), p);
}

}  // namespace loom
