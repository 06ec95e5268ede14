#pragma once

#include <array>

#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

struct AdamOptions {
  double lr = 1e-3;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8, weight_decay = 0;
  bool amsgrad = false, maximize = false;
};

struct AdamWOptions {
  double lr = 1e-3;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8, weight_decay = 1e-2;
  bool amsgrad = false, maximize = false;
};

// Adam (Kingma, Ba 2014; torch.optim.Adam), weight decay added to the gradient. State: step, exp_avg, exp_avg_sq and
// with amsgrad (Reddi et al. 2018) max_exp_avg_sq.
class Adam : public Optimizer {
 public:
  explicit Adam(std::vector<Group> groups, const AdamOptions& options = {})
      : Adam("Adam", false, std::move(groups), options) {}
  explicit Adam(std::vector<NamedTensor> parameters, const AdamOptions& options = {})
      : Adam(std::vector<Group>{{std::move(parameters), {}}}, options) {}
  std::vector<std::string> slots(const Group& group) const override;

 protected:
  Adam(const char* name, bool decoupled, std::vector<Group> groups, const AdamOptions& options);
  void validate(const Group& group) const override;
  void update(const Group& group, std::span<const Item> items) override;

 private:
  bool decoupled_;
};

// Adam with decoupled weight decay (Loshchilov, Hutter 2017; torch.optim.AdamW).
class AdamW : public Adam {
 public:
  explicit AdamW(std::vector<Group> groups, const AdamWOptions& o = {})
      : Adam("AdamW", true, std::move(groups), {o.lr, o.betas, o.eps, o.weight_decay, o.amsgrad, o.maximize}) {}
  explicit AdamW(std::vector<NamedTensor> parameters, const AdamWOptions& options = {})
      : AdamW(std::vector<Group>{{std::move(parameters), {}}}, options) {}
};

}  // namespace loom::optim
