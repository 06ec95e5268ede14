// What it costs to hand something to two threads of OpenMP: what bench/fork_join.cpp is compared with. The environment
// says how many there are and how they wait (OMP_NUM_THREADS, OMP_WAIT_POLICY).      c++ -O3 -fopenmp fork_join.cpp
#include "../fork_join.h"

#include <cstdio>
#include <string>

int main() {
  const auto fork = [](const auto& item) {
#pragma omp parallel
    item();
  };
  const auto report = [](const std::string& name, double seconds) {
    std::printf("{\"case\": \"%s\", \"value\": %.9g, \"unit\": \"us\"}\n", name.c_str(), seconds * 1e6);
  };
  bench::measure_forks(fork, report, false);
}
