// SPDX-License-Identifier: Apache-2.0
// The same test cases run twice: started plainly, a test's ranks are threads; under mpirun, each process is a rank.
#define DOCTEST_CONFIG_IMPLEMENT
#include "main.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <iostream>
#include <sstream>

bool under_mpirun() { return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr || std::getenv("PMI_SIZE") != nullptr; }

int run_doctest(int argc, char** argv, int rank) {
  doctest::Context context(argc, argv);
  std::ostringstream output;
  if (rank != 0) context.setCout(&output);
  const int failed = context.run();
  if (rank != 0 && failed != 0) std::cerr << "--- rank " << rank << '\n' << output.str() << std::flush;
  return failed;
}

int main(int argc, char** argv) { return under_mpirun() ? run_mpi(argc, argv) : run_doctest(argc, argv); }
