// The moment before a communicator exists: nothing watches yet, and a rank that never comes would hang the others.
#pragma once

#include <chrono>

#include <loom/distributed/mpi/call.h>

namespace loom::mpi {

// Returns when all ranks of comm have called it. Ends the job when some have not come in time, with their names, and at
// once when one has ended instead (of the world, where Loom started MPI).
void await_all(MPI_Comm comm, std::chrono::milliseconds timeout);

// This rank will build no communicator any more: tells one other, which tells all if anybody waits.
void will_not_come();

}  // namespace loom::mpi
