#include <algorithm>
#include <climits>

#include <loom/distributed/mpi/messages.h>

namespace loom::mpi {

// Progresses while it waits, so that a process without the thread gets on too.
class Messages::Waiting : public Work::State {
 public:
  Waiting(std::shared_ptr<Messages> messages, std::shared_ptr<Pending> work)
      : messages_(std::move(messages)), work_(std::move(work)) {}
  void wait() override {
    for (Backoff backoff; !done(); backoff.pause()) messages_->progress();
    work_->wait();
  }
  bool done() const override { return work_->done(); }

 private:
  std::shared_ptr<Messages> messages_;
  std::shared_ptr<Pending> work_;
};

Messages::Messages(MPI_Comm comm, int64_t chunk_elements, bool with_thread)
    : comm_(comm), chunk_(std::clamp<int64_t>(chunk_elements, 1, INT_MAX)), with_thread_(with_thread) {}

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
  Active& active = active_.emplace_back(Active{c, Clock::now(), {}, std::make_shared<Pending>()});
  start(active);
  if (with_thread_ && !thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
  return Work(std::make_shared<Waiting>(shared_from_this(), active.work));
}

void Messages::start(Active& active) {
  const Collective& c = active.collective;
  const bool sends = c.kind == Collective::send;
  const View& v = sends ? c.in : c.out;
  const size_t item = item_size(v.dtype);
  int64_t begin = 0;
  do {  // an empty message is a message
    std::byte* const data = v.as<std::byte>() + static_cast<size_t>(begin) * item;
    const int n = static_cast<int>(std::min(chunk_, v.numel() - begin));
    active.requests.push_back(MPI_REQUEST_NULL);
    MPI_Request* const request = &active.requests.back();
    if (sends)
      check_status(MPI_Isend(data, n, type_of_size(item), c.peer, c.tag, comm_, request), "MPI_Isend");
    else
      check_status(MPI_Irecv(data, n, type_of_size(item), c.peer, c.tag, comm_, request), "MPI_Irecv");
    begin += n;
  } while (begin < v.numel());
}

bool Messages::progress() {
  const std::lock_guard lock(mutex_);
  bool any = false;
  for (auto it = active_.begin(); it != active_.end();) {
    int done = 0;
    std::vector<MPI_Status> statuses(it->requests.size());
    const int code = MPI_Testall(static_cast<int>(it->requests.size()), it->requests.data(), &done, statuses.data());
    if (done == 0 && code == MPI_SUCCESS) {
      ++it;
      continue;
    }
    settle(*it, statuses, code);
    it = active_.erase(it);
    any = true;
  }
  return any;
}

void Messages::settle(Active& active, const std::vector<MPI_Status>& statuses, int code) const {
  const Collective& c = active.collective;
  try {
    if (code == MPI_ERR_IN_STATUS)
      for (const MPI_Status& s : statuses)
        if (s.MPI_ERROR != MPI_ERR_PENDING) check_status(s.MPI_ERROR, to_string(c));
    check_status(code, to_string(c));
    int64_t received = 0;
    for (const MPI_Status& s : statuses) {
      int n = 0;
      if (c.kind == Collective::recv)
        check_status(MPI_Get_count(&s, type_of_size(item_size(c.out.dtype)), &n), "MPI_Get_count");
      received += n;
    }
    check(c.kind == Collective::send || received == c.out.numel(), to_string(c), ": got ", received, " elements");
    active.work->finish();
  } catch (const std::exception& e) {
    active.work->fail(e.what());
  }
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
