// Which MPI this is.
#include <mpi.h>

#include <array>
#include <string>

#include <loom/distributed/mpi.h>

namespace loom {

// Its first line, without what Open MPI says of its packagers: "Open MPI v4.1.4, package: Debian OpenMPI, ident: ...".
std::string mpi_description() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  if (MPI_Get_library_version(text.data(), &length) != MPI_SUCCESS) return "an MPI that does not say its version";
  const std::string all(text.data(), static_cast<size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

}  // namespace loom
