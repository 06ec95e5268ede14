// Collectives that a captured step repeats. The library ends a communicator only when all graphs that hold some of its
// collectives have gone (2.26 and later), and waits for that also when it is aborted: so such a graph keeps the group,
// whose communicator it ends where the group has been left before.
#include <exception>
#include <thread>
#include <utility>

#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/stream.h>
#include <loom/distributed/nccl/group.h>

namespace loom::nccl {

// What a graph holds of the group.
class Group::InGraph {
 public:
  explicit InGraph(std::shared_ptr<Group> group) : group_(std::move(group)) {}
  ~InGraph() { group_->graph_gone(); }
  InGraph(const InGraph&) = delete;
  InGraph& operator=(const InGraph&) = delete;

 private:
  const std::shared_ptr<Group> group_;
};

// The caller has the lock. A replay comes after all that the communication stream has been given before, so that the
// device comes to collectives in the order in which the host issued them; it is watched as a whole.
void Group::note_capture(const Fingerprint& first) {
  GraphCapture* const capture = context().capture;
  if (capture == nullptr || (capture == capture_ && !in_graph_.expired())) return;
  const auto held = std::make_shared<InGraph>(shared_from_this());
  ++graphs_;
  in_graph_ = held;
  capture_ = capture;
  capture->keep(held);
  capture->before_replay([this] {
    check_alive();
    current_stream(setting_.device).wait(stream(setting_.device, Lane::communication).record());
  });
  capture->after_replay([this, first] { follow_replay(first); });
}

void Group::follow_replay(const Fingerprint& first) {
  const Event done = current_stream(setting_.device).record();
  const std::lock_guard lock(mutex_);
  if (!failed()) pending_.push_back({first, done, Clock::now(), true});
}

void Group::graph_gone() noexcept {
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (--graphs_ == 0 && left_) comm = std::exchange(comm_, nullptr);
  }
  if (comm == nullptr) return;
  try {
    finish(comm);
  } catch (const std::exception&) {  // the device has failed
    (void)ncclCommAbort(comm);
  }
}

void Group::give_up(ncclComm_t comm) noexcept {
  bool waits = false;
  {
    const std::lock_guard lock(mutex_);
    waits = graphs_ > 0;
  }
  const auto abort = [comm, device = setting_.device.index] {
    const cuda::DeviceScope scope(device, std::nothrow);
    (void)ncclCommAbort(comm);
  };
  if (waits)
    std::thread(abort).detach();
  else
    abort();
}

}  // namespace loom::nccl
