#include <loom/nn/optim/scheduler.h>

#include <loom/tensor/create.h>

namespace loom::optim {

namespace {

// In a state: since the scheduler's last step the optimizer has made some, or has only skipped them.
constexpr const char *stepped = "stepped", *waiting = "waits";

}  // namespace

void Scheduler::start() {
  for (Group& group : optimizer_->param_groups()) {
    group.options.try_emplace("initial_lr", group.lr());
    base_lrs_.push_back(group.option("initial_lr"));
  }
  initial_step();
}

void Scheduler::initial_step() {
  step_count_ = 0;
  is_initial_ = true;
  advance();
  is_initial_ = false;
}

bool Scheduler::waits(const StepCounts& counts) const {
  return counts.taken == seen_.taken && counts.skipped > seen_.skipped;
}

void Scheduler::step() {
  const StepCounts counts = optimizer_->step_counts();
  if (waits(counts)) return;
  seen_ = counts;
  advance();
}

void Scheduler::advance() {
  ++step_count_;
  update();
}

void Scheduler::update() {
  ++last_epoch_;
  apply(get_lr());
}

void Scheduler::restart() {
  last_epoch_ = 0;
  apply(closed_form());
}

void Scheduler::apply(const std::vector<double>& rates) {
  std::vector<Group>& groups = optimizer_->param_groups();
  check(rates.size() == groups.size(), "scheduler: made for ", rates.size(), " parameter groups, the optimizer has ",
        groups.size(), "; make schedulers after the last add_param_group");
  for (size_t i = 0; i < groups.size(); ++i) groups[i].set_lr(rates[i]);
  last_lr_ = rates;
}

std::vector<double> Scheduler::present_lr() const {
  return from_groups([](double lr) { return lr; });
}

void Scheduler::visit_all(const Visit& visit) {
  visit_number(visit, "last_epoch", last_epoch_);
  visit_number(visit, "step_count", step_count_);
  visit("base_lrs", base_lrs_);
  visit("last_lr", last_lr_);
  visit_state(visit);
}

State Scheduler::state_dict() const {
  State out;
  // Visiting to read changes nothing.
  const_cast<Scheduler*>(this)->visit_all([&](const char* name, std::vector<double>& numbers) {
    out[name] = from_vector(numbers, {static_cast<int64_t>(numbers.size())});
  });
  const StepCounts counts = optimizer_->step_counts();
  if (counts.taken > seen_.taken) out[stepped] = full({}, 1, DType::boolean);
  if (waits(counts)) out[waiting] = full({}, 1, DType::boolean);
  return out;
}

std::string Scheduler::mismatches(const State& values) const {
  std::string missing;
  // Visiting to read changes nothing.
  const_cast<Scheduler*>(this)->visit_all([&](const char* name, std::vector<double>& numbers) {
    const auto found = values.find(name);
    if (found == values.end() || found->second.numel() != static_cast<int64_t>(numbers.size()))
      missing += (missing.empty() ? "" : ", ") + std::string(name);
  });
  return missing;
}

void Scheduler::assign(const State& values) {
  visit_all([&](const char* name, std::vector<double>& numbers) { numbers = values.at(name).to_vector<double>(); });
  seen_ = optimizer_->step_counts();
  if (values.contains(stepped)) --seen_.taken;
  if (values.contains(waiting)) --seen_.skipped;
}

void Scheduler::check_state_dict(const State& values) const {
  const std::string missing = mismatches(values);
  check(missing.empty(), "scheduler: load_state_dict: missing or of another length: ", missing);
}

void Scheduler::load_state_dict(const State& values) {
  check_state_dict(values);
  assign(values);
}

}  // namespace loom::optim
