#include <loom/nn/optim/adagrad.h>

#include <loom/accelerators/accelerator.h>

namespace loom::optim {

Adagrad::Adagrad(std::vector<Group> groups, const AdagradOptions& o)
    : Optimizer("Adagrad", {{"lr", o.lr},
                            {"lr_decay", o.lr_decay},
                            {"weight_decay", o.weight_decay},
                            {"initial_accumulator_value", o.initial_accumulator_value},
                            {"eps", o.eps},
                            {"maximize", o.maximize}}) {
  add_param_groups(std::move(groups));
}

void Adagrad::validate(const Group& group) const {
  require(group.lr() >= 0, "learning rate", group.lr());
  require(group.option("lr_decay") >= 0, "lr_decay value", group.option("lr_decay"));
  require(group.option("weight_decay") >= 0, "weight_decay value", group.option("weight_decay"));
  require(group.option("initial_accumulator_value") >= 0, "initial_accumulator_value value",
          group.option("initial_accumulator_value"));
  require(group.option("eps") >= 0, "epsilon value", group.option("eps"));
}

void Adagrad::update(const Group& group, std::span<const Item> items) {
  AdagradStep step{.lr = group.lr(),
                   .lr_decay = group.option("lr_decay"),
                   .weight_decay = group.option("weight_decay"),
                   .eps = group.option("eps"),
                   .maximize = group.option("maximize") != 0,
                   .step = 0};
  for (const auto& [piece, state] : items) {
    step.step = ++state->step;
    const Tensor& sum = state->tensor("sum", piece.value, group.option("initial_accumulator_value"));
    accelerator(piece.value.device()).adagrad(piece.value, piece.grad, sum, step);
  }
}

}  // namespace loom::optim
