#include <algorithm>
#include <cstdlib>

#include <loom/distributed/mpi.h>

namespace loom {

// Not SLURM_PROCID: under mpirun within a Slurm job it describes the daemon, and srun without MPI sets it too.
bool started_by_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(name) != nullptr) return true;
  return false;
}

// SLURM_STEP_NUM_TASKS: only srun sets it, for its tasks; SLURM_NTASKS is also there in a batch script, which is one
// process, and SLURM_PTY_PORT in an interactive shell, whose programs are no tasks.
int srun_tasks_apart() {
  const char* const tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  if (tasks == nullptr || started_by_mpi() || std::getenv("SLURM_PTY_PORT") != nullptr) return 0;
  const int n = std::atoi(tasks);
  return n > 1 ? n : 0;
}

NodePlacement node_placement(Communicator& world) {
  const std::vector<std::string> nodes = world.all_gather_bytes(world.node());
  const std::string& own = nodes[static_cast<size_t>(world.rank())];
  NodePlacement out{.local_size = static_cast<int>(std::ranges::count(nodes, own)), .nodes = 0};
  for (size_t r = 0; r < nodes.size(); ++r) {
    const bool first_of_node = std::find(nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(r), nodes[r]) ==
                               nodes.begin() + static_cast<std::ptrdiff_t>(r);
    if (nodes[r] == own && first_of_node) out.node_rank = out.nodes;
    if (first_of_node) ++out.nodes;
    if (nodes[r] == own && static_cast<int>(r) < world.rank()) ++out.local_rank;
  }
  return out;
}

}  // namespace loom
