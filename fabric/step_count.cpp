#include <loom/fabric/step_count.h>

#include <utility>

#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>

namespace loom {

void StepCount::add(const optim::StepOutcome& made) {
  if (!made.found().defined()) {
    steps_ += made ? 1 : 0;
    return;
  }
  const NoGrad off;
  const Tensor one = sum(made.found() == 0.0);
  if (on_device_.defined() && on_device_.device() != one.device()) fetch();
  on_device_ = on_device_.defined() ? on_device_ + one : one;
}

void StepCount::fetch() const {
  if (const Tensor steps = std::exchange(on_device_, {}); steps.defined()) steps_ += steps.item<int64_t>();
}

int64_t StepCount::value() const {
  fetch();
  return steps_;
}

StateEntry StepCount::entry() {
  const StateEntry host(steps_);
  return {[this, host] {
            fetch();
            return host.save();
          },
          host.verify,
          [this, host](StateDict saved, bool strict) {
            fetch();
            host.load(std::move(saved), strict);
          }};
}

}  // namespace loom
