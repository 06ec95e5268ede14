#include <cstring>

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

void Notes::send(const Note& note, int to, const std::vector<Traffic>& traffic) {
  Outgoing& o = outgoing_.emplace_back();
  o.bytes.resize(sizeof note + traffic.size() * sizeof(Traffic));
  std::memcpy(o.bytes.data(), &note, sizeof note);
  if (!traffic.empty()) std::memcpy(o.bytes.data() + sizeof note, traffic.data(), traffic.size() * sizeof(Traffic));
  check_status(MPI_Isend(o.bytes.data(), static_cast<int>(o.bytes.size()), MPI_BYTE, to, 0, comm_, &o.request),
               "MPI_Isend");
}

Notes::Received Notes::receive(int from, int bytes) {
  std::vector<std::byte> data(static_cast<size_t>(bytes));
  check_status(MPI_Recv(data.data(), bytes, MPI_BYTE, from, 0, comm_, MPI_STATUS_IGNORE), "MPI_Recv");
  Received out{.when = Clock::now()};
  std::memcpy(&out.note, data.data(), sizeof out.note);
  out.traffic.resize((data.size() - sizeof out.note) / sizeof(Traffic));
  if (!out.traffic.empty())
    std::memcpy(out.traffic.data(), data.data() + sizeof out.note, out.traffic.size() * sizeof(Traffic));
  return out;
}

void Notes::say_goodbye(bool failed, const TrafficWith& traffic_with) {
  std::vector<std::vector<Traffic>> traffic(static_cast<size_t>(size_));
  for (int r = 0; r < size_; ++r) traffic[static_cast<size_t>(r)] = traffic_with(r);
  const std::lock_guard lock(mutex_);
  Note note = own(Note::goodbye);
  note.failed = failed ? 1 : 0;
  for (int r = 0; r < size_; ++r)
    if (r != rank_) send(note, r, traffic[static_cast<size_t>(r)]);
}

void Notes::ask_all() {
  const std::lock_guard lock(mutex_);
  for (int r = 0; r < size_; ++r)
    if (r != rank_) send(own(Note::ask), r);
}

void Notes::poll() {
  const std::lock_guard lock(mutex_);
  for (;;) {
    int found = 0;
    MPI_Status status;
    check_status(MPI_Iprobe(MPI_ANY_SOURCE, 0, comm_, &found, &status), "MPI_Iprobe");
    if (found == 0) return;
    const int from = status.MPI_SOURCE;
    int bytes = 0;
    check_status(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
    Received received = receive(from, bytes);
    if (received.note.kind == Note::ask)
      send(own(Note::answer), from);
    else
      (received.note.kind == Note::goodbye ? goodbyes_ : answers_)[static_cast<size_t>(from)] = std::move(received);
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
