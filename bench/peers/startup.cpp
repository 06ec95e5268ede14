// MPI's own start: what bench/startup.cpp with mpi=1 is compared with. mpicxx -O3 startup.cpp
#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

int main(int argc, char** argv) {
  int provided = 0, rank = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  double kib = 0;
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "VmRSS:") status >> kib;
  std::printf("{\"case\": \"time to first op\", \"value\": %.9g, \"unit\": \"clock\"}\n", now);
  std::printf("{\"case\": \"resident memory\", \"value\": %.9g, \"unit\": \"MiB\"}\n", kib / 1024);
  MPI_Finalize();
}
