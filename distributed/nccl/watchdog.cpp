#include <loom/distributed/nccl/watchdog.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace loom::nccl {

namespace {

using namespace std::chrono_literals;

constexpr auto interval = 20ms;  // what a failure may go unseen; a look costs microseconds

class Watchdog {
 public:
  // Never destroyed: groups may be left while the process ends.
  static Watchdog& one() {
    static Watchdog* const instance = new Watchdog;
    return *instance;
  }

  void add(const std::shared_ptr<Group>& group) {
    const std::lock_guard lock(mutex_);
    groups_.push_back(group);
    if (!running_) std::thread([this] { run(); }).detach();
    running_ = true;
  }
  void remove(const Group* group) {
    const std::lock_guard lock(mutex_);
    std::erase_if(groups_, [&](const auto& g) { return g.get() == group; });
    changed_.notify_all();
  }
  std::vector<std::shared_ptr<Group>> groups() {
    const std::lock_guard lock(mutex_);
    return groups_;
  }

 private:
  void run() {
    for (std::unique_lock lock(mutex_);;) {
      if (groups_.empty()) {
        running_ = false;
        return;
      }
      const auto groups = groups_;
      lock.unlock();
      for (const auto& g : groups) look_after(*g);
      lock.lock();
      changed_.wait_for(lock, interval);
    }
  }

  static void look_after(Group& group) {
    std::string error;
    try {
      error = group.watch();
    } catch (const std::exception& e) {  // the device itself has failed
      error = e.what();
    }
    if (!error.empty()) fail_family(group.setting().family, error);
    group.end_ranks_when_due();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Group>> groups_;
  bool running_ = false;
};

}  // namespace

void watch_over(const std::shared_ptr<Group>& group) { Watchdog::one().add(group); }
void forget(const Group* group) { Watchdog::one().remove(group); }

// All know before the first is aborted, which the others may see as an error of its own.
void fail_family(const std::string& family, const std::string& error) noexcept {
  std::vector<std::pair<std::shared_ptr<Group>, ncclComm_t>> failed;
  for (const auto& group : Watchdog::one().groups())
    if (group->setting().family == family) failed.emplace_back(group, group->fail(error));
  for (const auto& [group, comm] : failed)
    if (comm != nullptr) group->give_up(comm);
}

}  // namespace loom::nccl
