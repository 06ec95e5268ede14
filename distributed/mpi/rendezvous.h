// The moment before a communicator exists: nothing watches yet, and a rank that never comes would hang the others.
#pragma once

#include <chrono>

#include <loom/distributed/mpi/call.h>

namespace loom::mpi {

// Returns when all ranks of comm have called it. Ends the job when some have not come in time, with their names, and at
// once when one has ended instead (of the world, where Loom started MPI).
void await_all(MPI_Comm comm, std::chrono::milliseconds timeout);

// This rank will build no communicator any more: returns when the same is true of all. Whoever waits for one hears of
// it. (MPI_Finalize waits for all, too; but mpirun 4.1 may hang when the job is aborted while a rank is in there.)
void end_together();

}  // namespace loom::mpi
