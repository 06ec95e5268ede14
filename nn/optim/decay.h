// Schedules that multiply the rates: step by step, in closed form, or by a function.
#pragma once

#include <functional>
#include <vector>

#include <loom/nn/optim/scheduler.h>

namespace loom::optim {

// Times gamma every step_size epochs.
class StepLR final : public Scheduler {
 public:
  StepLR(Optimizer& optimizer, int64_t step_size, double gamma = 0.1);

 private:
  std::vector<double> get_lr() override;
  std::vector<double> closed_form() override;
  void visit_state(const Visit& visit) override;
  int64_t step_size_;
  double gamma_;
};

// Times gamma at each milestone.
class MultiStepLR final : public Scheduler {
 public:
  MultiStepLR(Optimizer& optimizer, std::vector<int64_t> milestones, double gamma = 0.1);

 private:
  std::vector<double> get_lr() override;
  std::vector<double> closed_form() override;
  void visit_state(const Visit& visit) override;
  std::vector<int64_t> milestones_;
  double gamma_;
};

// Times gamma every epoch.
class ExponentialLR final : public Scheduler {
 public:
  ExponentialLR(Optimizer& optimizer, double gamma);

 private:
  std::vector<double> get_lr() override;
  std::vector<double> closed_form() override;
  void visit_state(const Visit& visit) override;
  double gamma_;
};

// Times factor for total_iters epochs.
class ConstantLR final : public Scheduler {
 public:
  explicit ConstantLR(Optimizer& optimizer, double factor = 1.0 / 3, int64_t total_iters = 5);

 private:
  std::vector<double> get_lr() override;
  std::vector<double> closed_form() override;
  void visit_state(const Visit& visit) override;
  double factor_;
  int64_t total_iters_;
};

struct LinearLROptions {
  double start_factor = 1.0 / 3, end_factor = 1;
  int64_t total_iters = 5;
};

// Times a factor that goes from start_factor to end_factor in total_iters epochs: warm-up.
class LinearLR final : public Scheduler {
 public:
  explicit LinearLR(Optimizer& optimizer, const LinearLROptions& options = {});

 private:
  std::vector<double> get_lr() override;
  std::vector<double> closed_form() override;
  void visit_state(const Visit& visit) override;
  LinearLROptions options_;
};

// (1 - epoch / total_iters)^power, then 0.
class PolynomialLR final : public Scheduler {
 public:
  explicit PolynomialLR(Optimizer& optimizer, int64_t total_iters = 5, double power = 1);

 private:
  std::vector<double> get_lr() override;
  std::vector<double> closed_form() override;
  void visit_state(const Visit& visit) override;
  int64_t total_iters_;
  double power_;
};

// The initial rate times a function of the epoch; one for all groups or one for each.
class LambdaLR final : public Scheduler {
 public:
  using Factor = std::function<double(int64_t epoch)>;
  LambdaLR(Optimizer& optimizer, const Factor& factor);
  LambdaLR(Optimizer& optimizer, std::vector<Factor> factors);

 private:
  std::vector<double> get_lr() override;
  std::vector<Factor> factors_;
};

}  // namespace loom::optim
