// Whether ops are recorded, for a scope.
#pragma once

#include <loom/tensor/context.h>

namespace loom {

class GradMode {
 public:
  explicit GradMode(bool enabled) : context_(context()), previous_(context_.grad_mode) { context_.grad_mode = enabled; }
  ~GradMode() { context_.grad_mode = previous_; }
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  Context& context_;
  bool previous_;
};

// Nothing is recorded in its scope: evaluation, initialisation, updates in place.
class NoGrad : public GradMode {
 public:
  NoGrad() : GradMode(false) {}
};

class EnableGrad : public GradMode {
 public:
  EnableGrad() : GradMode(true) {}
};

}  // namespace loom
