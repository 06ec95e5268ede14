#pragma once

#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

struct RmspropOptions {
  double lr = 1e-2, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0;
  bool centered = false, maximize = false;
};

// RMSprop (Hinton 2012; centered: Graves 2013; torch.optim.RMSprop). State: step, square_avg, with momentum
// momentum_buffer, with centered grad_avg.
class RMSprop : public Optimizer {
 public:
  explicit RMSprop(std::vector<Group> groups, const RmspropOptions& options = {});
  explicit RMSprop(std::vector<NamedTensor> parameters, const RmspropOptions& options = {})
      : RMSprop(std::vector<Group>{{std::move(parameters), {}}}, options) {}
  std::vector<std::string> slots(const Group& group) const override;

 protected:
  void validate(const Group& group) const override;
  void update(const Group& group, std::span<const Item> items) override;
};

}  // namespace loom::optim
