#include <algorithm>
#include <climits>

#include <loom/accelerators/host_clock.h>
#include <loom/accelerators/recording.h>
#include <loom/distributed/mpi/messages.h>

namespace loom::mpi {

// Progresses while it waits, so that a process without the thread gets on too.
class Messages::Waiting : public Work::State {
 public:
  Waiting(std::shared_ptr<Messages> messages, std::shared_ptr<Pending> work)
      : messages_(std::move(messages)), work_(std::move(work)) {}
  void wait() override {
    for (Backoff backoff; !done(); backoff.pause()) {
      messages_->progress();
      if (backoff.for_long() && messages_->while_waiting_) messages_->while_waiting_();
    }
    work_->wait();
  }
  bool done() const override { return work_->done(); }

 private:
  std::shared_ptr<Messages> messages_;
  std::shared_ptr<Pending> work_;
};

Messages::Messages(MPI_Comm comm, MPI_Comm labels, int64_t chunk_elements, bool with_thread)
    : comm_(comm),
      labels_comm_(labels),
      chunk_(std::clamp<int64_t>(chunk_elements, 1, INT_MAX)),
      with_thread_(with_thread) {
  check_status(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
}

Messages::~Messages() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

Work Messages::post(const Collective& c) {
  const std::lock_guard lock(mutex_);
  Traffic& traffic = traffic_[c.peer][c.tag];
  const int64_t number = ++(c.kind == Collective::send ? traffic.sent : traffic.received);
  Active& active = active_.emplace_back(Active{c, Clock::now(), number, {}, {}, std::make_shared<Pending>()});
  start(active);
  if (with_thread_ && !thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
  return Work(std::make_shared<Waiting>(shared_from_this(), active.work));
}

void Messages::start(Active& active) {
  const Collective& c = active.collective;
  const View& v = c.kind == Collective::send ? c.in : c.out;
  const auto transfer = [&](void* data, int n, MPI_Datatype type, int tag, MPI_Comm comm) {
    MPI_Request& request = active.requests.emplace_back(MPI_REQUEST_NULL);
    if (c.kind == Collective::send)
      check_status(MPI_Isend(data, n, type, c.peer, tag, comm, &request), "MPI_Isend");
    else
      check_status(MPI_Irecv(data, n, type, c.peer, tag, comm, &request), "MPI_Irecv");
  };
  active.label = {v.numel(), v.dtype};
  active.requests.reserve(2);
  transfer(&active.label, sizeof(Label), MPI_BYTE, c.tag + 1, labels_comm_);
  int64_t begin = 0;
  do {  // an empty message is a message
    const int64_t n = std::min(chunk_, v.numel() - begin);
    transfer(v.as<std::byte>() + static_cast<size_t>(begin) * item_size(v.dtype), static_cast<int>(n),
             type_of_size(item_size(v.dtype)), c.tag, comm_);
    begin += n;
  } while (begin < v.numel());
}

bool Messages::progress() {
  const std::lock_guard lock(mutex_);
  bool any = false;
  for (auto it = active_.begin(); it != active_.end();) {
    int done = 0;
    statuses_.resize(it->requests.size());
    const int code = MPI_Testall(static_cast<int>(it->requests.size()), it->requests.data(), &done, statuses_.data());
    if (done == 0 && code == MPI_SUCCESS) {
      ++it;
      continue;
    }
    settle(*it, code);
    it = active_.erase(it);
    any = true;
  }
  return any;
}

void Messages::settle(Active& active, int code) const {
  const Collective& c = active.collective;
  if (profile::observed()) {
    const auto since = std::chrono::nanoseconds(active.since.time_since_epoch()).count();
    profile::add_span(Activity::collective, description(c, 2), since, host_nanoseconds(), {"messages"});
  }
  const Label& label = active.label;
  try {
    const bool labelled = code == MPI_SUCCESS || statuses_[0].MPI_ERROR == MPI_SUCCESS;
    if (c.kind == Collective::recv && labelled && (label.dtype != c.out.dtype || label.count != c.out.numel()))
      fail(unexpected_message(c, rank_, label.dtype, label.count));
    if (code == MPI_ERR_IN_STATUS)
      for (const MPI_Status& s : statuses_)
        if (s.MPI_ERROR != MPI_ERR_PENDING) check_status(s.MPI_ERROR, to_string(c));
    check_status(code, to_string(c));
    active.work->finish();
  } catch (const std::exception& e) {
    active.work->fail(e.what());
  }
}

std::vector<Traffic> Messages::traffic_with(int rank) const {
  const std::lock_guard lock(mutex_);
  std::vector<Traffic> out;
  if (const auto with = traffic_.find(rank); with != traffic_.end())
    for (const auto& [tag, traffic] : with->second) out.push_back({tag, traffic.sent, traffic.received});
  return out;
}

std::optional<Collective> Messages::waiting_in_vain(int rank, const std::vector<Traffic>& issued_there) const {
  const std::lock_guard lock(mutex_);
  for (const Active& active : active_) {
    const Collective& c = active.collective;
    if (c.peer != rank) continue;
    const auto there = std::ranges::find(issued_there, c.tag, &Traffic::tag);
    const bool sends = c.kind == Collective::send;
    if (there == issued_there.end() || active.number > (sends ? there->received : there->sent)) return c;
  }
  return {};
}

bool Messages::idle() const {
  const std::lock_guard lock(mutex_);
  return active_.empty();
}

std::optional<Messages::Oldest> Messages::oldest() const {
  const std::lock_guard lock(mutex_);
  if (active_.empty()) return {};
  return Oldest{active_.front().collective, active_.front().since};
}

void Messages::run() {
  for (Backoff backoff;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !active_.empty(); });
      if (stopping_) return;
    }
    if (progress())
      backoff.reset();
    else
      backoff.pause();
  }
}

}  // namespace loom::mpi
