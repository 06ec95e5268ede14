#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include <loom/accelerators/cores.h>
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

namespace {

// What a rank tells the others of where it runs.
struct Place {
  std::string node;
  int process;
  std::vector<int> cores;
};

std::string to_bytes(const Place& place) {
  std::string out = std::to_string(place.process);
  for (const int core : place.cores) out += ' ' + std::to_string(core);
  return out + '\n' + place.node;
}

Place to_place(const std::string& bytes) {
  const size_t end = bytes.find('\n');
  std::istringstream numbers(bytes.substr(0, end));
  Place place{.node = bytes.substr(end + 1), .process = 0, .cores = {}};
  numbers >> place.process;
  for (int core; numbers >> core;) place.cores.push_back(core);
  return place;
}

// Ranks that are threads of one process share its pool: they count once.
void divide_cores(NodePlacement& out, const std::vector<Place>& places, const Place& own) {
  std::map<int, std::set<int>> users;  // of each core: processes
  for (const Place& place : places)
    if (place.node == own.node)
      for (const int core : place.cores) users[core].insert(place.process);
  double share = 0;
  for (const int core : own.cores) share += 1.0 / static_cast<double>(users[core].size());
  out.cores = std::max(1, static_cast<int>(share + 1e-6));
  out.node_cores = std::max(1, static_cast<int>(users.size()));
}

}  // namespace

NodePlacement node_placement(Communicator& world) {
  const Place own{.node = world.node(), .process = static_cast<int>(getpid()), .cores = available_core_ids()};
  std::vector<Place> places;
  for (const std::string& bytes : world.all_gather_bytes(to_bytes(own))) places.push_back(to_place(bytes));
  NodePlacement out{.local_size = static_cast<int>(std::ranges::count(places, own.node, &Place::node)), .nodes = 0};
  std::set<std::string> seen;
  for (size_t r = 0; r < places.size(); ++r) {
    const bool local = places[r].node == own.node, first_of_node = seen.insert(places[r].node).second;
    if (local && first_of_node) out.node_rank = out.nodes;
    if (first_of_node) ++out.nodes;
    if (local && static_cast<int>(r) < world.rank()) ++out.local_rank;
  }
  divide_cores(out, places, own);
  return out;
}

}  // namespace loom
