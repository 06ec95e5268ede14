// The collectives of plain MPI: what bench/collectives.cpp is compared with. mpicxx -O3 collectives.cpp
//   collectives collective=all_reduce|reduce_scatter|all_gather
#include "../collectives.h"

#include <mpi.h>

#include <cstdio>
#include <string_view>
#include <vector>

#include "../timing.h"

namespace {

// all_reduce in place.
void run(std::string_view name, std::vector<float>& whole, std::vector<float>& part) {
  const int n = static_cast<int>(part.size());
  if (name == "collective=reduce_scatter")
    MPI_Reduce_scatter_block(whole.data(), part.data(), n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  else if (name == "collective=all_gather")
    MPI_Allgather(part.data(), n, MPI_FLOAT, whole.data(), n, MPI_FLOAT, MPI_COMM_WORLD);
  else
    MPI_Allreduce(MPI_IN_PLACE, whole.data(), static_cast<int>(whole.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0, rank = 0, ranks = 1;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SINGLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const std::string_view name = argc > 1 ? argv[1] : "collective=all_reduce";
  for (const bench::CollectiveSize& size : bench::collective_sizes) {
    const size_t elements = static_cast<size_t>(size.bytes) / sizeof(float) / static_cast<size_t>(ranks);
    std::vector<float> part(std::max<size_t>(1, elements)), whole(part.size() * static_cast<size_t>(ranks));
    const int64_t rounds = bench::rounds_of(size.bytes);
    const bench::Times times = bench::time_steps(rounds / 10 + 1, rounds, [&] { run(name, whole, part); });
    if (rank == 0)
      std::printf("{\"case\": \"%s\", \"value\": %.9g, \"unit\": \"us\"}\n", size.name, times.median * 1e6);
  }
  MPI_Finalize();
}
