#include <loom/nn/optim/sgd.h>

#include <loom/nn/optim/step_pieces.h>

namespace loom::optim {

SGD::SGD(std::vector<Group> groups, const SgdOptions& o)
    : Optimizer("SGD", {{"lr", o.lr},
                        {"momentum", o.momentum},
                        {"dampening", o.dampening},
                        {"weight_decay", o.weight_decay},
                        {"nesterov", o.nesterov},
                        {"maximize", o.maximize}}) {
  add_param_groups(std::move(groups));
}

std::vector<std::string> SGD::slots(const Group& group) const {
  if (group.option("momentum") == 0) return {};
  return {"momentum_buffer"};
}

void SGD::validate(const Group& group) const {
  require(group.lr() >= 0, "learning rate", group.lr());
  require(group.option("momentum") >= 0, "momentum value", group.option("momentum"));
  require(group.option("weight_decay") >= 0, "weight_decay value", group.option("weight_decay"));
  check(group.option("nesterov") == 0 || (group.option("momentum") > 0 && group.option("dampening") == 0), name(),
        ": Nesterov momentum requires a momentum and zero dampening");
}

int64_t SGD::steps_of(const ParameterState& state) const { return state.tensors.contains("momentum_buffer") ? 1 : 0; }

void SGD::update(const Group& group, std::span<const Item> items) {
  constexpr const char* numbers[] = {"lr", "momentum", "dampening", "weight_decay"};  // as the step has them
  const SgdStep step{.lr = group.lr(),
                     .momentum = group.option("momentum"),
                     .dampening = group.option("dampening"),
                     .weight_decay = group.option("weight_decay"),
                     .nesterov = group.option("nesterov") != 0,
                     .maximize = group.option("maximize") != 0,
                     .control = control(group, numbers)};
  step_pieces(
      items,
      [&](UpdatePiece& update, const Piece& piece, ParameterState& state) {
        if (step.momentum == 0) return;
        update.step = steps_of(state) + 1;  // the first one initialises the buffer
        update.states[0] = dense(state.tensor("momentum_buffer", piece.value));
      },
      [&](Accelerator& on, std::span<const UpdatePiece> pieces) { on.sgd(pieces, step); });
}

}  // namespace loom::optim
