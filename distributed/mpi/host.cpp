#include <array>
#include <bit>

#include <loom/accelerators/cores.h>
#include <loom/accelerators/threads.h>
#include <loom/distributed/mpi/host.h>

namespace loom::mpi {
namespace {

MPI_Comm ranks_of_host(MPI_Comm comm) {
  MPI_Comm local = MPI_COMM_NULL;
  check_status(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local), "MPI_Comm_split_type");
  return local;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  check_status(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

constexpr int known_cores = 4096;  // by number; those beyond are left out
using Mask = std::array<uint64_t, known_cores / 64>;

Mask own_cores() {
  Mask mask{};
  for (const int core : available_core_ids())
    if (core < known_cores) mask[static_cast<size_t>(core) / 64] |= uint64_t{1} << (core % 64);
  return mask;
}

}  // namespace

Host survey_host(MPI_Comm comm) {
  MPI_Comm local = ranks_of_host(comm);
  Host host{.ranks = size_of(local), .threads = num_threads(), .cores = 0};
  Mask mask = own_cores();
  check_status(MPI_Allreduce(MPI_IN_PLACE, mask.data(), static_cast<int>(mask.size()), MPI_UINT64_T, MPI_BOR, local),
               "MPI_Allreduce");
  check_status(MPI_Allreduce(MPI_IN_PLACE, &host.threads, 1, MPI_INT, MPI_SUM, local), "MPI_Allreduce");
  for (const uint64_t word : mask) host.cores += std::popcount(word);
  free(local);
  return host;
}

bool on_one_host(MPI_Comm comm, int most) {
  MPI_Comm local = ranks_of_host(comm);
  int rank = 0;
  check_status(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  const int part = most > 0 ? rank / most : 0;
  int extremes[2] = {part, -part};
  check_status(MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_INT, MPI_MAX, comm), "MPI_Allreduce");
  const bool all = size_of(local) == size_of(comm) && extremes[0] == -extremes[1];
  free(local);
  return all;
}

}  // namespace loom::mpi
