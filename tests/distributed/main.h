// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whether this process was started as one rank of several processes.
bool under_mpirun();

// Runs the test cases that the arguments select. Ranks other than 0 print only when they fail.
int run_doctest(int argc, char** argv, int rank = 0);

// Runs them as a rank of MPI_COMM_WORLD; the result is the worst of all ranks.
int run_mpi(int argc, char** argv);
