#include <loom/nn/optim/sequential_schedule.h>

#include <algorithm>

#include <loom/nn/optim/plateau.h>

namespace loom::optim {

SequentialLR::SequentialLR(Optimizer& optimizer, std::vector<std::shared_ptr<Scheduler>> schedulers,
                           std::vector<int64_t> milestones)
    : Scheduler(optimizer), schedulers_(std::move(schedulers)), milestones_(std::move(milestones)) {
  check(!schedulers_.empty(), "SequentialLR: expects at least one scheduler");
  check(milestones_.size() + 1 == schedulers_.size(), "SequentialLR: expects one scheduler more than milestones, got ",
        schedulers_.size(), " and ", milestones_.size());
  for (const auto& scheduler : schedulers_) {
    check(&scheduler->optimizer() == &optimizer, "SequentialLR: all schedulers must belong to the same optimizer");
    check(dynamic_cast<const ReduceLROnPlateau*>(scheduler.get()) == nullptr,
          "SequentialLR: ReduceLROnPlateau cannot take part, its step needs a metric");
  }
  last_epoch_ = 0;
  for (Group& group : optimizer.param_groups()) group.set_lr(group.option("initial_lr"));
  undo_initial_step();
  Scheduler& first = *schedulers_[position()];
  first.initial_step();
  last_lr_ = first.get_last_lr();
}

void SequentialLR::undo_initial_step() {
  for (const auto& scheduler : schedulers_) scheduler->undo_initial_step();
}

size_t SequentialLR::position() const {
  return static_cast<size_t>(std::upper_bound(milestones_.begin(), milestones_.end(), last_epoch_) -
                             milestones_.begin());
}

void SequentialLR::advance() {
  ++last_epoch_;
  const size_t i = position();
  if (i > 0 && milestones_[i - 1] == last_epoch_)
    schedulers_[i]->restart();
  else
    schedulers_[i]->advance();
  last_lr_ = schedulers_[i]->get_last_lr();
}

void SequentialLR::visit_state(const Visit& visit) {
  std::vector<double> numbers(milestones_.begin(), milestones_.end());
  visit("milestones", numbers);
  milestones_.assign(numbers.begin(), numbers.end());
}

State SequentialLR::state_dict() const {
  State out = Scheduler::state_dict();
  for (size_t i = 0; i < schedulers_.size(); ++i)
    for (const auto& [name, value] : schedulers_[i]->state_dict()) out[str("schedulers.", i, ".", name)] = value;
  return out;
}

namespace {

State part_of(const State& values, const std::string& prefix) {
  State part;
  for (auto at = values.lower_bound(prefix); at != values.end() && at->first.starts_with(prefix); ++at)
    part[at->first.substr(prefix.size())] = at->second;
  return part;
}

}  // namespace

std::string SequentialLR::mismatches(const State& values) const {
  std::string all = Scheduler::mismatches(values);
  for (size_t i = 0; i < schedulers_.size(); ++i) {
    const std::string prefix = str("schedulers.", i, "."),
                      missing = schedulers_[i]->mismatches(part_of(values, prefix));
    if (!missing.empty()) all += (all.empty() ? "" : ", ") + str("of ", prefix, " ", missing);
  }
  return all;
}

void SequentialLR::assign(const State& values) {
  Scheduler::assign(values);
  for (size_t i = 0; i < schedulers_.size(); ++i) schedulers_[i]->assign(part_of(values, str("schedulers.", i, ".")));
}

}  // namespace loom::optim
