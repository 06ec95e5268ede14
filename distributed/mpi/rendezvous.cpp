#include <string>
#include <thread>
#include <vector>

#include <loom/accelerators/error.h>
#include <loom/distributed/mpi.h>
#include <loom/distributed/mpi/messages.h>
#include <loom/distributed/mpi/rendezvous.h>

namespace loom::mpi {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto patience_for_answers = 500ms;

// Far from the tags that programs use: MPI promises 32767 at least, and implementations have many more.
enum Sign : int { who_is_here, here, gone };
int tag_of(Sign sign) {
  int* highest = nullptr;
  int known = 0;
  check_status(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, static_cast<void*>(&highest), &known),
               "MPI_Comm_get_attr");
  return (known != 0 ? *highest : 32767) - static_cast<int>(sign);
}

// Empty messages, so eager ones: sent when the call returns.
void give(Sign sign, int to, MPI_Comm comm) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_status(MPI_Isend(nullptr, 0, MPI_BYTE, to, tag_of(sign), comm, &request), "MPI_Isend");
  check_status(MPI_Request_free(&request), "MPI_Request_free");
}

// The rank that gave the sign, -1 when there is none.
int take(Sign sign, MPI_Comm comm, int from = MPI_ANY_SOURCE) {
  int found = 0;
  MPI_Status status;
  check_status(MPI_Iprobe(from, tag_of(sign), comm, &found, &status), "MPI_Iprobe");
  if (found == 0) return -1;
  check_status(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, tag_of(sign), comm, MPI_STATUS_IGNORE), "MPI_Recv");
  return status.MPI_SOURCE;
}

// Those who wait here too answer.
std::string missing(MPI_Comm comm) {
  int rank = 0, size = 1;
  check_status(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  check_status(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  std::vector<bool> present(static_cast<size_t>(size));
  present[static_cast<size_t>(rank)] = true;
  for (int r = 0; r < size; ++r)
    if (r != rank) give(who_is_here, r, comm);
  for (const auto until = Clock::now() + patience_for_answers; Clock::now() < until; std::this_thread::sleep_for(1ms)) {
    if (const int r = take(here, comm); r >= 0) present[static_cast<size_t>(r)] = true;
    if (const int r = take(who_is_here, comm); r >= 0) present[static_cast<size_t>(r)] = true;
  }
  std::string out;
  for (int r = 0; r < size; ++r)
    if (!present[static_cast<size_t>(r)]) out += str(out.empty() ? "" : ", ", r);
  return out.empty() ? "all came late" : "missing: rank " + out;
}

}  // namespace

void await_all(MPI_Comm comm, std::chrono::milliseconds timeout) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_status(MPI_Ibarrier(comm, &request), "MPI_Ibarrier");
  const auto until = Clock::now() + timeout;
  for (Backoff b;; b.pause()) {
    int done = 0;
    check_status(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0) return;
    if (const int r = take(who_is_here, comm); r >= 0) give(here, r, comm);
    if (comm == MPI_COMM_WORLD)
      if (const int r = take(gone, comm); r >= 0)
        abort_job(str("rank ", r, " has ended, this rank waits for it to build a communicator"));
    if (Clock::now() > until)
      abort_job(str("timeout after ", static_cast<double>(timeout.count()) / 1000, " s in building a communicator; ",
                    missing(comm)),
                42);
  }
}

// A barrier by messages: to the neighbour, to the one after it, to the fourth ... A rank that waits elsewhere for a
// communicator gets one of them instead, for if some ranks end and others wait, one who waits comes next to one that
// ended.
void end_together() {
  int rank = 0, size = 1;
  check_status(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  check_status(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  for (int step = 1; step < size; step *= 2) {
    give(gone, (rank + step) % size, MPI_COMM_WORLD);
    for (Backoff b; take(gone, MPI_COMM_WORLD, (rank + size - step) % size) < 0;) b.pause();
  }
}

}  // namespace loom::mpi
