// Plain MPI_Allreduce in place: what bench/all_reduce.cpp is compared with. mpicxx -O3 all_reduce.cpp
#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "../timing.h"

int main(int argc, char** argv) {
  int provided = 0, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_SINGLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  struct Size {
    const char* name;
    int64_t bytes;
  };
  const Size sizes[] = {{"4 KB", 4 << 10}, {"64 KB", 64 << 10}, {"1 MB", 1 << 20},
                        {"4 MB", 4 << 20}, {"16 MB", 16 << 20}, {"100 MB", 100 << 20}};
  for (const Size& size : sizes) {
    std::vector<float> values(static_cast<size_t>(size.bytes) / sizeof(float));
    const int64_t rounds = std::clamp<int64_t>((int64_t{1} << 30) / size.bytes, 10, 2000);
    const bench::Times times = bench::time_steps(rounds / 10 + 1, rounds, [&] {
      MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    });
    if (rank == 0)
      std::printf("{\"case\": \"%s\", \"value\": %.9g, \"unit\": \"GB/s\", \"us\": %.9g}\n", size.name,
                  static_cast<double>(size.bytes) / times.median * 1e-9, times.median * 1e6);
  }
  MPI_Finalize();
}
