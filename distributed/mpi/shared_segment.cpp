#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <new>
#include <string>

#include <loom/distributed/mpi/shared_segment.h>

namespace loom::mpi {
namespace {

constexpr size_t page = 4096;
constexpr size_t header_bytes = page;

// Where the file is: the process that made it holds it open until all have mapped it. The mark tells that it is this
// file, for ranks in different containers may mean different processes by one number.
struct Ticket {
  int64_t process = -1, file = -1;
  uint64_t mark = 0;
};

std::string path_of(const Ticket& t) { return "/proc/" + std::to_string(t.process) + "/fd/" + std::to_string(t.file); }

size_t whole_pages(size_t bytes) { return (bytes + page - 1) / page * page; }

uint64_t new_mark() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  return static_cast<uint64_t>(now) ^ static_cast<uint64_t>(getpid()) << 40;
}

}  // namespace

SharedSegment::SharedSegment(std::byte* mapped, size_t length, size_t stride)
    : mapped_(mapped), length_(length), stride_(stride), parts_(mapped + header_bytes) {}

SharedSegment::~SharedSegment() { munmap(mapped_, length_); }

std::byte* SharedSegment::map(int file, size_t length) {
  if (file < 0) return nullptr;
  void* const at = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) return nullptr;
  madvise(at, length, MADV_HUGEPAGE);  // a wish: whether it is heard is the system's setting
  return static_cast<std::byte*>(at);
}

std::shared_ptr<SharedSegment> SharedSegment::make(MPI_Comm comm, size_t bytes_each) {
  int rank = 0, size = 1;
  check_status(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  check_status(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  const size_t stride = whole_pages(bytes_each == 0 ? 1 : bytes_each);
  const size_t length = header_bytes + stride * static_cast<size_t>(size);
  int file = -1;
  std::byte* mapped = nullptr;
  Ticket ticket;
  if (rank == 0) {
    file = memfd_create("loom", MFD_CLOEXEC);
    if (file >= 0 && ftruncate(file, static_cast<off_t>(length)) == 0) mapped = map(file, length);
    ticket = {getpid(), mapped == nullptr ? -1 : file, new_mark()};
    if (mapped != nullptr) new (mapped) Header{ticket.mark, size};
  }
  check_status(MPI_Bcast(&ticket, sizeof ticket, MPI_BYTE, 0, comm), "MPI_Bcast");
  if (rank != 0 && ticket.file >= 0) {
    file = open(path_of(ticket).c_str(), O_RDWR | O_CLOEXEC);
    struct stat facts {};
    if (file >= 0 && fstat(file, &facts) == 0 && facts.st_size == static_cast<off_t>(length))
      mapped = map(file, length);
  }
  int good = mapped != nullptr && reinterpret_cast<const Header*>(mapped)->mark == ticket.mark ? 1 : 0;
  check_status(MPI_Allreduce(MPI_IN_PLACE, &good, 1, MPI_INT, MPI_MIN, comm), "MPI_Allreduce");
  if (file >= 0) close(file);
  if (good == 1) return std::shared_ptr<SharedSegment>(new SharedSegment(mapped, length, stride));
  if (mapped != nullptr) munmap(mapped, length);
  return nullptr;
}

}  // namespace loom::mpi
