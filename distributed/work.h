// A collective under way.
#pragma once

#include <exception>
#include <memory>

#include <loom/accelerators/profile.h>

namespace loom {

class Work {
 public:
  // What a communicator shares with its caller.
  class State {
   public:
    virtual ~State() = default;
    virtual void wait() = 0;  // as Work's
    virtual bool done() const = 0;
  };

  Work() = default;  // done
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}

  // Blocks until the outputs are complete; of a collective on a GPU, makes this thread's current stream wait for that
  // instead. Throws Error when the collective failed. May be called more than once.
  void wait() const {
    if (!state_) return;
    const profile::Range range(Activity::wait, "Work.wait");
    state_->wait();
  }
  bool done() const { return !state_ || state_->done(); }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace loom
