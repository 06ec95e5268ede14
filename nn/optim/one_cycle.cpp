#include <loom/nn/optim/one_cycle.h>

#include <cmath>
#include <numbers>

namespace loom::optim {

namespace {

int64_t count_steps(const OneCycleOptions& o) {
  check(o.total_steps || (o.epochs && o.steps_per_epoch),
        "OneCycleLR: either total_steps or both epochs and steps_per_epoch must be given");
  const int64_t steps = o.total_steps ? *o.total_steps : *o.epochs * *o.steps_per_epoch;
  check(steps > 0, "OneCycleLR: expected a positive number of steps, got ", steps);
  return steps;
}

double of_group(const char* what, const PerGroup& given, size_t group, size_t groups) {
  check(given.values.size() == 1 || given.values.size() == groups, "OneCycleLR: expected ", groups, " values for ",
        what, ", got ", given.values.size());
  return given.values.size() == 1 ? given.values[0] : given.values[group];
}

}  // namespace

OneCycleLR::OneCycleLR(Optimizer& optimizer, const PerGroup& max_lr, const OneCycleOptions& o)
    : Scheduler(optimizer),
      total_steps_(count_steps(o)),
      linear_(o.anneal_strategy == "linear"),
      cycle_momentum_(o.cycle_momentum) {
  check(o.pct_start >= 0 && o.pct_start <= 1, "OneCycleLR: expected pct_start between 0 and 1, got ", o.pct_start);
  check(linear_ || o.anneal_strategy == "cos", "OneCycleLR: anneal_strategy is cos or linear, got ", o.anneal_strategy);
  set_phases(o.pct_start, o.three_phase);
  std::vector<Group>& groups = optimizer.param_groups();
  if (!groups.empty() && groups[0].options.contains("beta1")) momentum_ = "beta1";
  for (size_t i = 0; i < groups.size(); ++i) {
    auto& options = groups[i].options;
    const double highest = of_group("max_lr", max_lr, i, groups.size());
    options["initial_lr"] = highest / o.div_factor;
    options["max_lr"] = highest;
    options["min_lr"] = options["initial_lr"] / o.final_div_factor;
    if (!cycle_momentum_) continue;
    check(options.contains(momentum_), "OneCycleLR: ", optimizer.name(),
          " has neither momentum nor beta1; set cycle_momentum = false");
    options["max_momentum"] = options[momentum_] = of_group("max_momentum", o.max_momentum, i, groups.size());
    options["base_momentum"] = of_group("base_momentum", o.base_momentum, i, groups.size());
  }
  start();
}

void OneCycleLR::set_phases(double pct_start, bool three_phase) {
  const auto total = static_cast<double>(total_steps_);
  phases_ = {{pct_start * total - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum"}};
  if (three_phase) {
    phases_.push_back({2 * pct_start * total - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"});
    phases_.push_back({total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"});
  } else {
    phases_.push_back({total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum"});
  }
}

double OneCycleLR::anneal(double from, double to, double share) const {
  if (linear_) return (to - from) * share + from;
  return to + (from - to) / 2.0 * (std::cos(std::numbers::pi * share) + 1);
}

std::vector<double> OneCycleLR::get_lr() {
  check(last_epoch_ <= total_steps_, "OneCycleLR: tried to step ", last_epoch_, " times; the total number of steps is ",
        total_steps_);
  const auto step = static_cast<double>(last_epoch_);
  size_t i = 0;
  while (i + 1 < phases_.size() && step > phases_[i].end_step) ++i;
  const double start_step = i == 0 ? 0 : phases_[i - 1].end_step;
  const Phase& phase = phases_[i];
  const double length = phase.end_step - start_step;
  const double share = length == 0 ? 1 : (step - start_step) / length;  // a phase of no length is at its end
  std::vector<double> out;
  for (Group& group : optimizer_->param_groups()) {
    out.push_back(anneal(group.option(phase.start_lr), group.option(phase.end_lr), share));
    if (cycle_momentum_)
      group.options[momentum_] = anneal(group.option(phase.start_momentum), group.option(phase.end_momentum), share);
  }
  return out;
}

void OneCycleLR::visit_state(const Visit& visit) { visit_number(visit, "total_steps", total_steps_); }

}  // namespace loom::optim
