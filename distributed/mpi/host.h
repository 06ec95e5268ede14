// What the ranks of a communicator have on their host: each other, and its cores.
#pragma once

#include <loom/distributed/mpi/call.h>

namespace loom::mpi {

struct Host {
  int ranks = 1;    // of the communicator, on this host
  int threads = 1;  // compute threads of these ranks in all
  int cores = 1;    // that at least one of these ranks may use

  bool has_free_core() const { return threads < cores; }
};
Host survey_host(MPI_Comm comm);  // collective

// Whether all ranks are on one host. Of which at most `most` ranks are taken to be on the same one; 0: as many as there
// are. Collective.
bool on_one_host(MPI_Comm comm, int most);

}  // namespace loom::mpi
