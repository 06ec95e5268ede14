#pragma once

#include <string>

#include <loom/nn/optim/one_cycle.h>
#include <loom/nn/optim/scheduler.h>

namespace loom::optim {

struct PlateauOptions {
  std::string mode = "min";  // or "max": which metrics are better
  double factor = 0.1;
  int64_t patience = 10;  // epochs without improvement that are put up with
  double threshold = 1e-4;
  std::string threshold_mode = "rel";  // or "abs"
  int64_t cooldown = 0;                // epochs after a reduction in which none are counted
  PerGroup min_lr = 0;
  double eps = 1e-8;  // smaller reductions are not made
};

// Times factor when a metric has stopped improving.
class ReduceLROnPlateau final : public Scheduler {
 public:
  explicit ReduceLROnPlateau(Optimizer& optimizer, const PlateauOptions& options = {});

  using Scheduler::step;  // without a metric: an error
  void step(double metric);

 private:
  std::vector<double> get_lr() override { return present_lr(); }
  void advance() override;
  void visit_state(const Visit& visit) override;
  bool is_better(double metric) const;
  void reduce();

  PlateauOptions options_;
  double best_;
  int64_t bad_epochs_ = 0, cooldown_counter_ = 0;
};

}  // namespace loom::optim
