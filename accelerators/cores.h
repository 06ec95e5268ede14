// The processor's cores that this process may run on (the affinity mask), and where its threads are on them.
#pragma once

#include <vector>

namespace loom {

// How many, and their numbers in ascending order.
int available_cores();
std::vector<int> available_core_ids();

// The calling thread's, now; -1 where the system does not tell.
int current_core();
// Moves the calling thread off `core`: to the one that comes `turn` + 1 after it in the mask, round and round, where
// there is a choice none that shares its arithmetic units with `core`. From there it may go anywhere in the mask, as
// before. False where it is there still: the mask has no other, or the system lets no thread move, or has moved it
// back.
bool leave_core(int core, int turn);

}  // namespace loom
