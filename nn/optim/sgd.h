#pragma once

#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

struct SgdOptions {
  double lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, maximize = false;
};

// Stochastic gradient descent with momentum (torch.optim.SGD). State: momentum_buffer.
class SGD : public Optimizer {
 public:
  explicit SGD(std::vector<Group> groups, const SgdOptions& options = {});
  explicit SGD(std::vector<NamedTensor> parameters, const SgdOptions& options = {})
      : SGD(std::vector<Group>{{std::move(parameters), {}}}, options) {}
  std::vector<std::string> slots(const Group& group) const override;
  bool counts_steps() const override { return false; }

 protected:
  void validate(const Group& group) const override;
  int64_t steps_of(const ParameterState& state) const override;
  void update(const Group& group, std::span<const Item> items) override;
};

}  // namespace loom::optim
