#include <loom/fabric/environment.h>

#include <array>

#include <loom/distributed/mpi.h>
#include <loom/fabric/placement.h>
#include <loom/fabric/precision.h>
#include <loom/fabric/strategy.h>

namespace loom {

namespace {

std::shared_ptr<Communicator> join_mpi(const FabricOptions&) { return mpi_communicator(); }

// Each task would train alone, and write where the others write.
std::shared_ptr<Communicator> refuse_tasks_apart(const FabricOptions&) {
  fail("srun started ", srun_tasks_apart(),
       " tasks that cannot find each other; add --mpi=pmix to make them ranks, or start each program with -n 1");
}

// One process. Where more ranks are wanted, what can be wrong with the options is said here, once, rather than by every
// rank of the program that starts in place of this one.
std::shared_ptr<Communicator> join_alone(const FabricOptions& options) {
  const int ranks = requested_ranks(options.devices);
  check(options.num_nodes >= 1, "num_nodes=", options.num_nodes, ": expected a number of at least 1");
  check(options.num_nodes == 1, "num_nodes=", options.num_nodes,
        ": start the program on every node with mpirun or srun");
  if (ranks == 1) return self_communicator();
  check_accelerator_name(options.accelerator);
  if (!options.plugins.precision) make_precision(options.precision);
  if (!options.plugins.strategy) make_strategy(options.strategy, ranks);
  restart_under_mpirun(ranks);
}

constexpr std::array<Environment, 3> rows = {{
    {"mpi", [] { return started_by_mpi(); }, join_mpi},
    {"srun without pmix", [] { return srun_tasks_apart() > 0; }, refuse_tasks_apart},
    {"alone", [] { return true; }, join_alone},
}};

}  // namespace

const Environment& environment() {
  for (const Environment& row : rows)
    if (row.detected()) return row;
  return rows.back();
}

}  // namespace loom
