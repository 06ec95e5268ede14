#include <loom/nn/optim/plateau.h>

#include <cmath>
#include <limits>

namespace loom::optim {

ReduceLROnPlateau::ReduceLROnPlateau(Optimizer& optimizer, const PlateauOptions& o)
    : Scheduler(optimizer), options_(o) {
  check(o.factor < 1, "ReduceLROnPlateau: factor should be < 1, got ", o.factor);
  check(o.mode == "min" || o.mode == "max", "ReduceLROnPlateau: mode is min or max, got ", o.mode);
  check(o.threshold_mode == "rel" || o.threshold_mode == "abs", "ReduceLROnPlateau: threshold_mode is rel or abs, got ",
        o.threshold_mode);
  const size_t given = o.min_lr.values.size(), groups = optimizer.param_groups().size();
  check(given == 1 || given == groups, "ReduceLROnPlateau: expected ", groups, " values for min_lr, got ", given);
  best_ = std::numeric_limits<double>::infinity() * (o.mode == "min" ? 1 : -1);
  last_epoch_ = 0;
  last_lr_ = present_lr();
}

void ReduceLROnPlateau::advance() { fail("ReduceLROnPlateau: step(metric) needs the metric"); }

void ReduceLROnPlateau::step(double metric) {
  ++last_epoch_;
  if (is_better(metric)) {
    best_ = metric;
    bad_epochs_ = 0;
  } else {
    ++bad_epochs_;
  }
  if (cooldown_counter_ > 0) {
    --cooldown_counter_;
    bad_epochs_ = 0;
  }
  if (bad_epochs_ > options_.patience) {
    reduce();
    cooldown_counter_ = options_.cooldown;
    bad_epochs_ = 0;
  }
  last_lr_ = present_lr();
}

bool ReduceLROnPlateau::is_better(double metric) const {
  const bool relative = options_.threshold_mode == "rel";
  if (options_.mode == "min")
    return metric < (relative ? best_ * (1.0 - options_.threshold) : best_ - options_.threshold);
  return metric > (relative ? best_ * (options_.threshold + 1.0) : best_ + options_.threshold);
}

void ReduceLROnPlateau::reduce() {
  std::vector<Group>& groups = optimizer_->param_groups();
  const std::vector<double>& lowest = options_.min_lr.values;
  check(lowest.size() == 1 || lowest.size() == groups.size(), "ReduceLROnPlateau: ", lowest.size(),
        " values of min_lr for ", groups.size(), " parameter groups");
  for (size_t i = 0; i < groups.size(); ++i) {
    const double before = groups[i].lr();
    const double after = std::max(before * options_.factor, lowest.size() == 1 ? lowest[0] : lowest[i]);
    if (before - after > options_.eps) groups[i].set_lr(after);
  }
}

void ReduceLROnPlateau::visit_state(const Visit& visit) {
  visit_number(visit, "best", best_);
  visit_number(visit, "num_bad_epochs", bad_epochs_);
  visit_number(visit, "cooldown_counter", cooldown_counter_);
  visit_number(visit, "factor", options_.factor);
  visit_number(visit, "patience", options_.patience);
  visit_number(visit, "threshold", options_.threshold);
  visit_number(visit, "cooldown", options_.cooldown);
  visit_number(visit, "eps", options_.eps);
  visit("min_lrs", options_.min_lr.values);
}

}  // namespace loom::optim
