// Things that want to know. Fabric calls the hooks below by itself; fabric.call() calls any member function of any
// callback that has it.
#pragma once

namespace loom {

class Fabric;

class Callback {
 public:
  virtual ~Callback() = default;
  virtual void on_after_setup([[maybe_unused]] Fabric& fabric) {}
  virtual void on_after_optimizer_step([[maybe_unused]] Fabric& fabric) {}
};

}  // namespace loom
