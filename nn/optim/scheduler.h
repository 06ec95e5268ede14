// Learning rates that change: torch.optim.lr_scheduler's schedules, digit for digit. A scheduler sets the options of
// its optimizer's groups ("lr"; OneCycleLR also momentum) when it is made and at each step(), which follows the
// optimizer's: where that has only skipped its steps since (a loss scale overflowed), the scheduler waits too. To
// resume: make both as before, then load both states.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

class Scheduler {
 public:
  virtual ~Scheduler() = default;

  void step();
  const std::vector<double>& get_last_lr() const { return last_lr_; }  // per group
  int64_t last_epoch() const { return last_epoch_; }
  Optimizer& optimizer() const { return *optimizer_; }

  // Counters, rates and options; all or nothing, by name.
  virtual State state_dict() const;
  void load_state_dict(const State& values);
  void check_state_dict(const State& values) const;  // throws what load_state_dict would throw; reads shapes alone

 protected:
  friend class SequentialLR;
  // What a scheduler remembers: calls visit(name, numbers) with each; load gives them back in the same order.
  using Visit = std::function<void(const char* name, std::vector<double>& numbers)>;

  explicit Scheduler(Optimizer& optimizer) : optimizer_(&optimizer), seen_(optimizer.step_counts()) {}
  // The rates of last_epoch(), per group: from the groups' present ones, so that schedulers can be chained ...
  virtual std::vector<double> get_lr() = 0;
  virtual void advance();  // a step
  // ... and from the epoch alone.
  virtual std::vector<double> closed_form() { return get_lr(); }
  virtual void visit_state(const Visit&) {}
  virtual std::string mismatches(const State& values) const;  // what keeps values from being loaded
  virtual void assign(const State& values);                   // loads what has none
  virtual void undo_initial_step() { --last_epoch_; }

  void start();         // for constructors: notes the initial rates, and makes the first step
  void initial_step();  // the first step
  void update();        // to the next epoch
  void restart();       // to epoch 0, in closed form
  void apply(const std::vector<double>& rates);
  std::vector<double> present_lr() const;
  template <class F>
  std::vector<double> from_groups(const F& f) const {
    std::vector<double> out;
    for (const Group& group : optimizer_->param_groups()) out.push_back(f(group.lr()));
    return out;
  }
  template <class F>
  std::vector<double> from_initial(const F& f) const {
    std::vector<double> out;
    out.reserve(base_lrs_.size());
    for (const double lr : base_lrs_) out.push_back(f(lr));
    return out;
  }

  Optimizer* optimizer_;
  std::vector<double> base_lrs_, last_lr_;
  int64_t last_epoch_ = -1, step_count_ = 0;
  bool is_initial_ = false;

 private:
  bool waits(const StepCounts& counts) const;

  StepCounts seen_;  // of the optimizer's, at the last advance
  void visit_all(const Visit& visit);
};

// One number of a scheduler's state, for visit_state.
template <class T>
void visit_number(const std::function<void(const char*, std::vector<double>&)>& visit, const char* name, T& number) {
  std::vector<double> numbers = {static_cast<double>(number)};
  visit(name, numbers);
  number = static_cast<T>(numbers.at(0));
}

}  // namespace loom::optim
