// The one place that includes mpi.h, and the one that judges its statuses.
#pragma once

#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdint>
#include <string_view>

namespace loom::mpi {

// Throws Error "MPI_Bcast: MPI_ERR_..." unless code is MPI_SUCCESS.
void check_status(int code, std::string_view call);

// A private copy of a communicator, whose errors are returned. Collective.
MPI_Comm duplicate(MPI_Comm comm);
void free(MPI_Comm& comm);

// The unsigned type of this many bytes: MPI moves bits, Loom adds.
MPI_Datatype type_of_size(size_t bytes);

}  // namespace loom::mpi
