#pragma once

#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

struct AdagradOptions {
  double lr = 1e-2, lr_decay = 0, weight_decay = 0, initial_accumulator_value = 0, eps = 1e-10;
  bool maximize = false;
};

// Adagrad (Duchi et al. 2011; torch.optim.Adagrad). State: step, sum.
class Adagrad : public Optimizer {
 public:
  explicit Adagrad(std::vector<Group> groups, const AdagradOptions& options = {});
  explicit Adagrad(std::vector<NamedTensor> parameters, const AdagradOptions& options = {})
      : Adagrad(std::vector<Group>{{std::move(parameters), {}}}, options) {}
  std::vector<std::string> slots(const Group&) const override { return {"sum"}; }
  double initial(const Group& group, const std::string& slot) const override;

 protected:
  void validate(const Group& group) const override;
  void update(const Group& group, std::span<const Item> items) override;
};

}  // namespace loom::optim
