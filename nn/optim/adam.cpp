#include <loom/nn/optim/adam.h>

#include <loom/nn/optim/step_pieces.h>

namespace loom::optim {

Adam::Adam(const char* name, bool decoupled, std::vector<Group> groups, const AdamOptions& o)
    : Optimizer(name, {{"lr", o.lr},
                       {"beta1", o.betas[0]},
                       {"beta2", o.betas[1]},
                       {"eps", o.eps},
                       {"weight_decay", o.weight_decay},
                       {"amsgrad", o.amsgrad},
                       {"maximize", o.maximize}}),
      decoupled_(decoupled) {
  add_param_groups(std::move(groups));
}

std::vector<std::string> Adam::slots(const Group& group) const {
  if (group.option("amsgrad") == 0) return {"exp_avg", "exp_avg_sq"};
  return {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
}

void Adam::validate(const Group& group) const {
  const double beta1 = group.option("beta1"), beta2 = group.option("beta2");
  require(group.lr() >= 0, "learning rate", group.lr());
  require(group.option("eps") >= 0, "epsilon value", group.option("eps"));
  require(beta1 >= 0 && beta1 < 1, "beta parameter at index 0", beta1);
  require(beta2 >= 0 && beta2 < 1, "beta parameter at index 1", beta2);
  require(group.option("weight_decay") >= 0, "weight_decay value", group.option("weight_decay"));
}

void Adam::update(const Group& group, std::span<const Item> items) {
  constexpr const char* numbers[] = {"lr", "beta1", "beta2", "eps", "weight_decay"};  // as the step has them
  const AdamStep step{.lr = group.lr(),
                      .beta1 = group.option("beta1"),
                      .beta2 = group.option("beta2"),
                      .eps = group.option("eps"),
                      .weight_decay = group.option("weight_decay"),
                      .decoupled = decoupled_,
                      .amsgrad = group.option("amsgrad") != 0,
                      .maximize = group.option("maximize") != 0,
                      .control = control(group, numbers)};
  step_pieces(
      items,
      [&](UpdatePiece& update, const Piece& piece, ParameterState& state) {
        update.step = state.next_step();
        update.states[0] = dense(state.tensor("exp_avg", piece.value));
        update.states[1] = dense(state.tensor("exp_avg_sq", piece.value));
        if (step.amsgrad) update.states[2] = dense(state.tensor("max_exp_avg_sq", piece.value));
      },
      [&](Accelerator& on, std::span<const UpdatePiece> pieces) { on.adam(pieces, step); });
}

}  // namespace loom::optim
