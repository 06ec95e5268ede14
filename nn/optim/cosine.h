// Rates along a cosine (Loshchilov, Hutter 2016).
#pragma once

#include <loom/nn/optim/scheduler.h>

namespace loom::optim {

// From the initial rate to eta_min in T_max epochs, and back again.
class CosineAnnealingLR final : public Scheduler {
 public:
  CosineAnnealingLR(Optimizer& optimizer, int64_t T_max, double eta_min = 0);

 private:
  std::vector<double> get_lr() override;
  std::vector<double> closed_form() override;
  void visit_state(const Visit& visit) override;
  int64_t T_max_;
  double eta_min_;
};

// From the initial rate to eta_min in T_0 epochs, then anew, each time in T_mult times as many.
class CosineAnnealingWarmRestarts final : public Scheduler {
 public:
  CosineAnnealingWarmRestarts(Optimizer& optimizer, int64_t T_0, int64_t T_mult = 1, double eta_min = 0);

  using Scheduler::step;
  void step(double epoch);  // also fractions: epoch + batch / batches

 private:
  std::vector<double> get_lr() override;
  void advance() override;
  void visit_state(const Visit& visit) override;
  int64_t T_0_, T_mult_;
  double eta_min_, T_cur_ = -1, T_i_;
};

}  // namespace loom::optim
