#include <loom/nn/optim/rmsprop.h>

#include <loom/nn/optim/step_pieces.h>

namespace loom::optim {

RMSprop::RMSprop(std::vector<Group> groups, const RmspropOptions& o)
    : Optimizer("RMSprop", {{"lr", o.lr},
                            {"alpha", o.alpha},
                            {"eps", o.eps},
                            {"weight_decay", o.weight_decay},
                            {"momentum", o.momentum},
                            {"centered", o.centered},
                            {"maximize", o.maximize}}) {
  add_param_groups(std::move(groups));
}

std::vector<std::string> RMSprop::slots(const Group& group) const {
  std::vector<std::string> names = {"square_avg"};
  if (group.option("momentum") > 0) names.emplace_back("momentum_buffer");
  if (group.option("centered") != 0) names.emplace_back("grad_avg");
  return names;
}

void RMSprop::validate(const Group& group) const {
  for (const auto& [option, what] :
       {std::pair("lr", "learning rate"), std::pair("eps", "epsilon value"), std::pair("momentum", "momentum value"),
        std::pair("weight_decay", "weight_decay value"), std::pair("alpha", "alpha value")})
    require(group.option(option) >= 0, what, group.option(option));
}

void RMSprop::update(const Group& group, std::span<const Item> items) {
  constexpr const char* numbers[] = {"lr", "alpha", "eps", "weight_decay", "momentum"};  // as the step has them
  const RmspropStep step{.lr = group.lr(),
                         .alpha = group.option("alpha"),
                         .eps = group.option("eps"),
                         .weight_decay = group.option("weight_decay"),
                         .momentum = group.option("momentum"),
                         .centered = group.option("centered") != 0,
                         .maximize = group.option("maximize") != 0,
                         .control = control(group, numbers)};
  step_pieces(
      items,
      [&](UpdatePiece& update, const Piece& piece, ParameterState& state) {
        update.step = state.next_step();
        update.states[0] = dense(state.tensor("square_avg", piece.value));
        if (step.centered) update.states[1] = dense(state.tensor("grad_avg", piece.value));
        if (step.momentum > 0) update.states[2] = dense(state.tensor("momentum_buffer", piece.value));
      },
      [&](Accelerator& on, std::span<const UpdatePiece> pieces) { on.rmsprop(pieces, step); });
}

}  // namespace loom::optim
