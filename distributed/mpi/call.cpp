#include <loom/accelerators/error.h>
#include <loom/distributed/mpi/call.h>

namespace loom::mpi {

void check_status(int code, std::string_view call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  int kind = code;
  MPI_Error_class(code, &kind);
  fail(call, ": ", text, kind == MPI_ERR_TRUNCATE ? " (the ranks disagree about a size; LOOM_CHECK=1 names them)" : "");
}

MPI_Comm duplicate(MPI_Comm comm) {
  MPI_Comm out = MPI_COMM_NULL;
  check_status(MPI_Comm_dup(comm, &out), "MPI_Comm_dup");
  check_status(MPI_Comm_set_errhandler(out, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return out;
}

void free(MPI_Comm& comm) {
  if (comm != MPI_COMM_NULL) check_status(MPI_Comm_free(&comm), "MPI_Comm_free");
}

MPI_Datatype type_of_size(size_t bytes) {
  switch (bytes) {
    case 1:
      return MPI_UINT8_T;
    case 2:
      return MPI_UINT16_T;
    case 4:
      return MPI_UINT32_T;
    default:
      return MPI_UINT64_T;
  }
}

}  // namespace loom::mpi
