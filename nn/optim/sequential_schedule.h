#pragma once

#include <memory>

#include <loom/nn/optim/scheduler.h>

namespace loom::optim {

// One schedule after the other: the i-th begins, at its epoch 0, at milestones[i - 1].
//   SequentialLR schedule(adamw, {std::make_shared<LinearLR>(adamw), std::make_shared<CosineAnnealingLR>(adamw, 95)},
//   {5});
class SequentialLR final : public Scheduler {
 public:
  SequentialLR(Optimizer& optimizer, std::vector<std::shared_ptr<Scheduler>> schedulers,
               std::vector<int64_t> milestones);

  State state_dict() const override;  // those of the parts: "schedulers.0.last_epoch"

 private:
  std::vector<double> get_lr() override { return present_lr(); }
  void advance() override;
  void undo_initial_step() override;
  void visit_state(const Visit& visit) override;
  std::string mismatches(const State& values) const override;
  void assign(const State& values) override;
  size_t position() const;  // of the scheduler whose turn it is

  std::vector<std::shared_ptr<Scheduler>> schedulers_;
  std::vector<int64_t> milestones_;
};

}  // namespace loom::optim
