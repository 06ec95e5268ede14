// SPDX-License-Identifier: Apache-2.0
// Loom as a guest in a program that has MPI already: it takes a communicator of the program and leaves MPI running.
//   ranks_guest single|single_left|multiple
#include <loom/distributed/mpi.h>

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdio>
#include <string>

using namespace loom;

int main(int argc, char** argv) {
  const std::string what = argv[1];
  const bool single = what.starts_with("single");
  int level = 0, rank = 0, size = 0;
  if (single)
    MPI_Init(&argc, &argv);
  else
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
  if (single) {
    try {
      const auto refused = mpi_communicator({.mode = MpiMode::threaded});
    } catch (const Error& e) {
      std::printf("%s\n", e.what());
    }
  }
  {
    const auto world = mpi_communicator();
    const auto part = mpi_communicator_from_handle(static_cast<int>(MPI_Comm_c2f(half)));
    int64_t x = rank, y = rank;
    world->all_reduce(view_over(&x, i64, {1})).wait();
    part->all_reduce(view_over(&y, i64, {1})).wait();
    if (what == "single_left" && rank == 0) world->recv(view_over(&x, i64, {1}), 1).wait();
    std::printf("rank %d: %d %d\n", rank, static_cast<int>(x), static_cast<int>(y));
  }
  int sum = 0;
  MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, half);  // the program's communicator is still its own
  MPI_Comm_free(&half);
  MPI_Finalize();
  try {
    const auto late = mpi_communicator();
  } catch (const Error& e) {
    std::printf("%s\n", e.what());
  }
  return 0;
}
