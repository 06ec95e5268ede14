// Where this rank is, and how ranks come to be: under a launcher they are there; alone, the program starts itself again
// under mpirun.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include <loom/distributed/communicator.h>
#include <loom/fabric/options.h>

namespace loom {

// The ranks of a node that `devices` asks for when no launcher started the program. Throws Error for 0, negative
// numbers and text that is no number, and for more ranks than cores unless LOOM_OVERSUBSCRIBE=1.
int requested_ranks(const Devices& devices);
// "auto", or the number.
std::string to_string(const Devices& devices);

// Throws Error, with the list, for a name that is no accelerator's.
void check_accelerator_name(const std::string& name);

// The number of a rank's GPU. `seen`: the ids of the GPUs that each of the node's ranks sees, by local rank. Rank r
// takes the r-th; where each sees one, and no two the same (srun --gpus-per-task=1), that. Throws Error where there is
// none.
int gpu_of_rank(const std::string& accelerator, int local_rank, const std::vector<std::vector<std::string>>& seen);

// Throws Error when an explicit number differs from what the launcher gave.
void check_launched_ranks(const Devices& devices, int num_nodes, int local_size, int nodes);

// Replaces this process by `mpirun -n ranks` of the same program and arguments; returns only by throwing. As root it
// needs LOOM_ALLOW_RUN_AS_ROOT=1, since mpirun refuses by itself.
[[noreturn]] void restart_under_mpirun(int ranks);

}  // namespace loom
