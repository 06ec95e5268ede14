#pragma once

#include <optional>
#include <string_view>

#include <loom/nn/optim/scheduler.h>

namespace loom::optim {

// One number for all groups, or one for each.
struct PerGroup {
  std::vector<double> values;
  PerGroup(double all) : values{all} {}                            // NOLINT: .max_momentum = 0.95
  PerGroup(std::vector<double> each) : values(std::move(each)) {}  // NOLINT
  PerGroup(std::initializer_list<double> each) : values(each) {}   // NOLINT: {0.1, 0.2}
};

struct OneCycleOptions {
  std::optional<int64_t> total_steps = {};  // or both of
  std::optional<int64_t> epochs = {}, steps_per_epoch = {};
  double pct_start = 0.3;                    // the share of steps in which the rate grows
  std::string_view anneal_strategy = "cos";  // or "linear"
  bool cycle_momentum = true;                // momentum (or beta1) goes the other way
  PerGroup base_momentum = 0.85, max_momentum = 0.95;
  double div_factor = 25, final_div_factor = 1e4;  // initial = max / div, last = initial / final_div
  bool three_phase = false;
};

// Up to max_lr and down to almost nothing in total_steps steps, one per batch (Smith, Topin 2017).
class OneCycleLR final : public Scheduler {
 public:
  OneCycleLR(Optimizer& optimizer, const PerGroup& max_lr, const OneCycleOptions& options);

 private:
  struct Phase {
    double end_step;
    const char *start_lr, *end_lr, *start_momentum, *end_momentum;
  };
  void set_phases(double pct_start, bool three_phase);
  std::vector<double> get_lr() override;
  void visit_state(const Visit& visit) override;
  double anneal(double from, double to, double share) const;

  int64_t total_steps_;
  std::vector<Phase> phases_;
  bool linear_, cycle_momentum_;
  const char* momentum_ = "momentum";  // the option that plays it
};

}  // namespace loom::optim
