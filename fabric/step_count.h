// How many steps optimizers have made; those on which a GPU decides (loss scaling) are counted there.
#pragma once

#include <cstdint>

#include <loom/fabric/state.h>
#include <loom/nn/optim/optimizer.h>

namespace loom {

class StepCount {
 public:
  void add(const optim::StepOutcome& made);  // waits for nobody
  int64_t value() const;                     // waits for what a device has counted
  StateEntry entry();                        // a reference

 private:
  void fetch() const;
  mutable int64_t steps_ = 0;
  mutable Tensor on_device_;  // not yet among them; or undefined
};

}  // namespace loom
