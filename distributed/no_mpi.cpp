// Stands in for the MPI communicator in a build without it.
#include <unistd.h>

#include <cstdio>

#include <loom/distributed/mpi.h>

namespace loom {
namespace {

[[noreturn]] void refuse() { fail("this build of Loom has no MPI; configure with -DLOOM_MPI=ON"); }

}  // namespace

std::string mpi_description() { return "built without MPI"; }

bool mpi_takes_threads() { return false; }
std::unique_ptr<Communicator> mpi_communicator(const MpiOptions&) { refuse(); }
std::unique_ptr<Communicator> mpi_communicator_from_handle(int, const MpiOptions&) { refuse(); }

void abort_job(const std::string& reason, int exit_code) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s\n", reason.c_str());
  std::fflush(stderr);
  ::_exit(exit_code);
}

}  // namespace loom
