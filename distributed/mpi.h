// The MPI communicator. A build without MPI (LOOM_MPI=OFF) has these functions too; they throw and say so.
#pragma once

#include <memory>
#include <string>

#include <loom/distributed/communicator.h>

namespace loom {

// threaded: a communication thread per group runs blocking collectives in issue order on its own duplicated
// communicator, so that they overlap with compute (MPI_Iallreduce makes no progress by itself in Open MPI 4.1).
// inline_mode: collectives run in the calling thread: best where no core is free. automatic:
// LOOM_MPI_MODE=threaded|inline, else threaded where the ranks of the host have more cores than compute threads.
enum class MpiMode { automatic, threaded, inline_mode };

struct MpiOptions {
  MpiMode mode = MpiMode::automatic;
  CommunicatorOptions communicator = CommunicatorOptions::from_environment();
  int64_t chunk_elements = int64_t{1} << 30;  // counts above this are split (MPI counts are 32-bit); tests lower it
  int ranks_per_host = 0;  // above 0: neighbours in MPI_COMM_WORLD, so many at a time, count as one host; for tests
};

// "Open MPI v4.1.4", or why there is none. Starts nothing.
std::string mpi_description();

// Whether any thread may call MPI, which has to be running (MPI_THREAD_MULTIPLE).
bool mpi_takes_threads();

// True when a launcher (mpirun, mpiexec, srun --mpi=pmix) started this process; reads the environment only.
bool started_by_mpi();
// The number of tasks when srun started several that cannot find each other (without --mpi=pmix), else 0.
int srun_tasks_apart();

// Joins MPI_COMM_WORLD, starting MPI on first use. MPI started here is finalised at normal process exit; MPI that the
// program started itself is adopted and left to it. After an error MPI is not finalised but the job aborted.
std::unique_ptr<Communicator> mpi_communicator(const MpiOptions& options = {});
// Adopts a communicator of the program, given as MPI_Comm_c2f(comm); it is duplicated, not owned.
std::unique_ptr<Communicator> mpi_communicator_from_handle(int fortran_handle, const MpiOptions& options = {});

// Ranks of this node, from MPI itself (MPI_Comm_split_type shared), not from the launcher's variables.
struct NodePlacement {
  int local_rank = 0, local_size = 1, node_rank = 0, nodes = 1;
  int cores = 1;  // this process's share of the cores that it may run on: each is divided among those that may use it
  int node_cores = 1;  // that any rank of this node may run on
};
NodePlacement node_placement(Communicator& world);  // any communicator; groups ranks by host

// Ends the whole job with the reason printed once; does not return control to MPI's error handlers.
[[noreturn]] void abort_job(const std::string& reason, int exit_code = 1);

}  // namespace loom
