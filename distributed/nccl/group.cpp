#include <loom/distributed/nccl/group.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/distributed/nccl/enqueue.h>
#include <loom/distributed/nccl/watchdog.h>
#include <loom/distributed/spin.h>

namespace loom::nccl {

namespace {

using namespace std::chrono_literals;

constexpr auto patience_before_end = 1s;  // for a rank to say itself what has happened
constexpr int looks_before_sleep = 2000;

// Calls return at once, so that abort can come between them.
ncclConfig_t not_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

double seconds(std::chrono::milliseconds t) { return static_cast<double>(t.count()) / 1000; }

// A collective on the device. Its event has been recorded, whatever becomes of the group.
class InStream final : public Work::State {
 public:
  InStream(std::shared_ptr<Group> group, Event done, bool captured)
      : group_(std::move(group)), done_(std::move(done)), captured_(captured) {}
  void wait() override {
    group_->check_alive();
    current_stream(group_->setting().device).wait(done_);
  }
  bool done() const override { return captured_ || group_->failed() || done_.is_done(); }

 private:
  const std::shared_ptr<Group> group_;
  const Event done_;
  const bool captured_;  // in a graph: nothing runs now
};

}  // namespace

std::shared_ptr<Group> Group::make(Communicator& host, Setting setting) {
  ncclUniqueId id{};
  host.agree(error_of([&] {
    if (host.rank() == 0) check_call(ncclGetUniqueId(&id), "ncclGetUniqueId");
  }));
  setting.family = host.broadcast_bytes(std::string(id.internal, sizeof id.internal));
  std::memcpy(id.internal, setting.family.data(), sizeof id.internal);
  auto group = std::make_shared<Group>(&host, std::move(setting));
  host.agree(error_of([&] {
    const Setting& s = group->setting_;
    const cuda::DeviceScope scope(s.device.index);
    Lock lock(group->mutex_);
    ncclConfig_t config = not_blocking();
    check_call(ncclCommInitRankConfig(&group->comm_, s.size, id, s.rank, &config), "ncclCommInitRankConfig",
               group->comm_);
    group->settle_or_fail(lock, group->comm_, "ncclCommInitRankConfig");
  }));
  watch_over(group);
  return group;
}

// The library wants a communicator without work when it is split.
std::shared_ptr<Group> Group::split(Communicator* part, int color, int key) {
  Setting setting = setting_;
  setting.rank = part != nullptr ? part->rank() : 0;
  setting.size = part != nullptr ? part->size() : 1;
  auto group = std::make_shared<Group>(part, std::move(setting));
  host_->agree(error_of([&] {
    wait_until_idle();
    const cuda::DeviceScope scope(setting_.device.index);
    Lock lock(mutex_);
    check_alive();
    ncclConfig_t config = not_blocking();
    check_call(ncclCommSplit(comm_, part != nullptr ? color : NCCL_SPLIT_NOCOLOR, key, &group->comm_, &config),
               "ncclCommSplit", comm_);
    settle_or_fail(lock, comm_, "ncclCommSplit");
    if (part != nullptr) settle_or_fail(lock, group->comm_, "ncclCommSplit");
  }));
  if (part == nullptr) return nullptr;
  watch_over(group);
  return group;
}

Group::~Group() {
  const cuda::DeviceScope scope(setting_.device.index, std::nothrow);
  if (comm_ != nullptr) (void)ncclCommAbort(comm_);
}

// Until the library has done what it was asked for; false where the timeout came first. It waits for other ranks when a
// communicator begins, and when they first exchange anything. `comm` may come later, from a thread of the library's.
bool Group::settle(Lock& lock, ncclComm_t& comm, std::string_view call) const {
  const auto until = Clock::now() + setting_.timeout;
  for (int look = 0;; ++look) {
    if (failed()) throw Error(error_);
    const ncclComm_t now = std::atomic_ref(comm).load(std::memory_order_acquire);
    ncclResult_t state = ncclInProgress;
    if (now != nullptr) check_call(ncclCommGetAsyncError(now, &state), "ncclCommGetAsyncError", now);
    if (state == ncclSuccess) return true;
    if (state != ncclInProgress) ::loom::fail(describe(state, call, now));
    if (Clock::now() > until) return false;
    lock.unlock();
    if (look < looks_before_sleep)
      rest(look);
    else
      std::this_thread::sleep_for(200us);
    lock.lock();
  }
}

void Group::settle_or_fail(Lock& lock, ncclComm_t& comm, std::string_view call) const {
  check(settle(lock, comm, call), "timeout after ", seconds(setting_.timeout), " s in ", call, ": not all ranks came");
}

std::string Group::place_of(const Fingerprint& collective) const {
  return str(to_string(collective), " on rank ", setting_.rank, " of ", setting_.size);
}

std::string Group::timed_out(const Pending& late, size_t behind) const {
  return str("timeout after ", seconds(setting_.timeout), " s in ", place_of(late.collective),
             late.replayed ? ", or what follows it in its graph" : "",
             behind > 0 ? str("; ", behind, " more behind it") : "");
}

void Group::check_alive() const {
  if (!failed()) return;
  throw Error(error_);
}

Work Group::submit(const Collective& c) {
  static_cast<void>(type_of(c.in.data != nullptr ? c.in.dtype : c.out.dtype));  // one that NCCL lacks ends no group
  const cuda::DeviceScope scope(setting_.device.index);  // where the library goes back to when it has issued its calls
  const Stream own = stream(setting_.device, Lane::communication);
  auto* const handle = static_cast<cudaStream_t>(own.handle());
  Lock lock(mutex_);
  check_alive();
  own.wait(current_stream(setting_.device).record());
  bool settled = false;
  const std::string error = error_of([&] {
    const profile::Range range(Activity::collective, [&] {
      profile::Description d = description(c, setting_.size);
      d.device = setting_.device;
      d.stream = own.handle();
      return d;
    });
    enqueue(c, comm_, setting_.rank, setting_.size, handle);
    settled = settle(lock, comm_, to_string(c.kind));
  });
  if (!settled) {
    static_cast<void>(error_of([&] { collect(); }));
    const Pending own{fingerprint(c), {}, {}};
    const Pending& at = pending_.empty() ? own : pending_.front();
    const std::string text = error.empty() ? timed_out(own, 0) : str(place_of(at.collective), ": ", error);
    lock.unlock();
    fail_family(setting_.family, text);
    check_alive();
  }
  const bool captured = cuda::is_capturing(handle);
  const Event done = own.record();
  for (const View* v : {&c.out, &c.in})
    if (v->data != nullptr) accelerator(setting_.device).use_by(v->data, own.handle());
  if (captured)
    note_capture(fingerprint(c));
  else
    pending_.push_back({fingerprint(c), done, Clock::now()});
  return Work(std::make_shared<InStream>(shared_from_this(), done, captured));
}

ncclComm_t Group::fail(const std::string& error) noexcept {
  const std::lock_guard lock(mutex_);
  if (failed()) return nullptr;
  error_ = error;
  failed_at_ = Clock::now();
  failed_.store(true, std::memory_order_release);
  pending_.clear();
  return std::exchange(comm_, nullptr);
}

void Group::collect() {
  while (!pending_.empty() && pending_.front().done.is_done()) {
    pending_.pop_front();
    last_done_ = Clock::now();
  }
}

std::string Group::watch() {
  const std::lock_guard lock(mutex_);
  if (comm_ == nullptr) return {};
  collect();
  ncclResult_t state = ncclSuccess;
  check_call(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError", comm_);
  if (state != ncclSuccess && state != ncclInProgress) {
    return describe(state, pending_.empty() ? "NCCL" : place_of(pending_.front().collective), comm_);
  }
  if (pending_.empty() || Clock::now() < std::max(pending_.front().since, last_done_) + setting_.timeout) return {};
  return timed_out(pending_.front(), pending_.size() - 1);
}

void Group::end_ranks_when_due() {
  {
    const std::lock_guard lock(mutex_);
    if (!failed() || Clock::now() < failed_at_ + patience_before_end) return;
  }
  end_ranks(error_);
}

void Group::end_ranks(const std::string& error) {
  const std::lock_guard lock(host_mutex_);
  if (Communicator* const host = std::exchange(host_, nullptr)) host->abort(error);
}

// Looks, so that what will never be done becomes a failure meanwhile.
void Group::wait_until_idle() {
  for (int look = 0;; ++look) {
    {
      const std::lock_guard lock(mutex_);
      collect();
      if (pending_.empty()) return;
    }
    if (look < looks_before_sleep)
      rest(look);
    else
      std::this_thread::sleep_for(100us);
  }
}

void Group::finish(ncclComm_t comm) const {
  const cuda::DeviceScope scope(setting_.device.index);
  const auto until = Clock::now() + setting_.timeout;
  ncclResult_t state = ncclCommFinalize(comm);
  while (state == ncclInProgress && Clock::now() < until) {
    std::this_thread::sleep_for(100us);
    if (ncclCommGetAsyncError(comm, &state) != ncclSuccess) break;
  }
  (void)(state == ncclSuccess ? ncclCommDestroy(comm) : ncclCommAbort(comm));
}

void Group::leave(bool by_exception) {
  if (!by_exception) wait_until_idle();
  forget(this);
  if (!by_exception && failed()) end_ranks(error_);  // nobody has said it
  {
    const std::lock_guard lock(host_mutex_);
    host_ = nullptr;
  }
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    left_ = graphs_ > 0 && !by_exception;
    if (!left_) comm = std::exchange(comm_, nullptr);
  }
  if (comm == nullptr) return;
  if (by_exception)
    give_up(comm);
  else
    finish(comm);
}

}  // namespace loom::nccl
