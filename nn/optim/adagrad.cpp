#include <loom/nn/optim/adagrad.h>

#include <loom/nn/optim/step_pieces.h>

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

double Adagrad::initial(const Group& group, const std::string&) const {
  return group.option("initial_accumulator_value");
}

void Adagrad::update(const Group& group, std::span<const Item> items) {
  constexpr const char* numbers[] = {"lr", "lr_decay", "weight_decay", "eps"};  // as the step has them
  const AdagradStep step{.lr = group.lr(),
                         .lr_decay = group.option("lr_decay"),
                         .weight_decay = group.option("weight_decay"),
                         .eps = group.option("eps"),
                         .maximize = group.option("maximize") != 0,
                         .control = control(group, numbers)};
  step_pieces(
      items,
      [&](UpdatePiece& update, const Piece& piece, ParameterState& state) {
        update.step = state.next_step();
        update.states[0] = dense(state.tensor("sum", piece.value, initial(group, "sum")));
      },
      [&](Accelerator& on, std::span<const UpdatePiece> pieces) { on.adagrad(pieces, step); });
}

}  // namespace loom::optim
