// Uneven inputs:
//
//   fabric.join(model, [&] {
//     for (auto [x, y] : own_batches) { ... }  // as many as this rank has
//   }, {.state = {{"scheduler", scheduler}}});
//
// A rank that has run out takes part in what the others do with the model. Afterwards all ranks hold what the first of
// the last that had data holds: model with its gradients, all optimizers of this Fabric, what its precision keeps, its
// step and random numbers, and `state`. Collective; what the loop must not do stands in distributed/join.h.
#pragma once

#include <loom/distributed/join.h>
#include <loom/fabric/state.h>

namespace loom {

struct FabricJoinOptions {
  // As JoinOptions.
  bool divide_by_initial_world_size = true;
  bool enable = true;
  bool throw_on_early_termination = false;
  // What else is to be alike on all ranks afterwards.
  State state = {};
};

}  // namespace loom
