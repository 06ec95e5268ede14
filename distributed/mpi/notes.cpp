#include <loom/distributed/mpi/notes.h>

namespace loom::mpi {

Notes::Notes(MPI_Comm comm, const FlightRecorder& recorder) : comm_(comm), recorder_(recorder) {
  check_status(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_status(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  goodbyes_.resize(static_cast<size_t>(size_));
  answers_.resize(static_cast<size_t>(size_));
}

Note Notes::own(Note::Kind kind) const {
  const FlightRecorder::Snapshot s = recorder_.snapshot();
  return {.kind = kind,
          .running = s.running ? 1 : 0,
          .started = s.started,
          .completed = s.completed(),
          .current = s.current};
}

void Notes::send(const Note& note, int to) {
  outgoing_.push_back({note, MPI_REQUEST_NULL});
  check_status(MPI_Isend(&outgoing_.back().note, sizeof(Note), MPI_BYTE, to, 0, comm_, &outgoing_.back().request),
               "MPI_Isend");
}

void Notes::tell_all(Note::Kind kind, bool failed) {
  const std::lock_guard lock(mutex_);
  Note note = own(kind);
  note.failed = failed ? 1 : 0;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) send(note, r);
}

void Notes::poll() {
  const std::lock_guard lock(mutex_);
  for (;;) {
    int found = 0;
    MPI_Status status;
    check_status(MPI_Iprobe(MPI_ANY_SOURCE, 0, comm_, &found, &status), "MPI_Iprobe");
    if (found == 0) return;
    const int from = status.MPI_SOURCE;
    Note note;
    check_status(MPI_Recv(&note, sizeof note, MPI_BYTE, from, 0, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
    if (note.kind == Note::ask)
      send(own(Note::answer), from);
    else
      (note.kind == Note::goodbye ? goodbyes_ : answers_)[static_cast<size_t>(from)] = Received{note, Clock::now()};
  }
}

void Notes::finish_sends() {
  const std::lock_guard lock(mutex_);
  for (Outgoing& o : outgoing_) check_status(MPI_Wait(&o.request, MPI_STATUS_IGNORE), "MPI_Wait");
  outgoing_.clear();
}

std::vector<int> Notes::staying() const {
  const std::lock_guard lock(mutex_);
  std::vector<int> out;
  for (int r = 0; r < size_; ++r)
    if (r != rank_ && !goodbyes_[static_cast<size_t>(r)]) out.push_back(r);
  return out;
}

bool Notes::all_left() const { return staying().empty(); }

std::optional<Notes::Received> Notes::goodbye_of(int rank) const {
  const std::lock_guard lock(mutex_);
  return goodbyes_[static_cast<size_t>(rank)];
}

std::optional<Notes::Received> Notes::answer_of(int rank) const {
  const std::lock_guard lock(mutex_);
  return answers_[static_cast<size_t>(rank)];
}

}  // namespace loom::mpi
