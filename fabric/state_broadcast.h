// One thing's state from one rank to all.
#pragma once

#include <loom/distributed/communicator.h>
#include <loom/fabric/state.h>

namespace loom {

// Gives all ranks what the entry holds on `root`. Collective. Throws what loading throws.
void broadcast_state(Communicator& ranks, const StateEntry& entry, int root);

}  // namespace loom
