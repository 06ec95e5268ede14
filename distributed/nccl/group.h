// One NCCL communicator: how it begins, what it has under way, how it ends.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include <loom/accelerators/stream.h>
#include <loom/distributed/communicator.h>
#include <loom/distributed/nccl/call.h>
#include <loom/tensor/device_graph.h>

namespace loom::nccl {

class Group : public std::enable_shared_from_this<Group> {
 public:
  // All that begin together, or are split from one another, end together: they have the same family.
  struct Setting {
    Device device;
    int rank = 0, size = 1;
    std::chrono::milliseconds timeout;
    std::string family = {};
  };

  // Joins the ranks of `host`, which is there until leave(). Collective; the same Error on all.
  static std::shared_ptr<Group> make(Communicator& host, Setting setting);
  // part: what the host's ranks were split into with this color and key, null for a color below 0, which gives null.
  // Collective over the ranks of this group.
  std::shared_ptr<Group> split(Communicator* part, int color, int key);
  Group(Communicator* host, Setting setting) : setting_(std::move(setting)), host_(host) {}
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const Setting& setting() const { return setting_; }
  // Puts a collective into the communication stream, after what is in the current one.
  Work submit(const Collective& c);
  // Waits for what was issued, and for the other ranks to leave too; by an exception: waits for nobody.
  void leave(bool by_exception);

  // From now on all calls throw Error(error). What is under way is given up once the communicator that this returns has
  // been aborted; null where it has failed before. Any thread.
  [[nodiscard]] ncclComm_t fail(const std::string& error) noexcept;
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  void check_alive() const;

  // Ends what fail() returned. It waits for graphs that hold some of its collectives to go, so then a thread of its own
  // does: what runs is given up at once in any case.
  void give_up(ncclComm_t comm) noexcept;

  // For the watchdog: forgets what is done; what has gone wrong, empty if nothing.
  std::string watch();
  void end_ranks_when_due();  // the same: a while after a failure, those of the host

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending {
    Fingerprint collective;  // of a graph: its first
    Event done;
    Clock::time_point since;
    bool replayed = false;  // as part of a graph
  };
  class InGraph;
  using Lock = std::unique_lock<std::mutex>;

  bool settle(Lock& lock, ncclComm_t& comm, std::string_view call) const;
  void settle_or_fail(Lock& lock, ncclComm_t& comm, std::string_view call) const;
  std::string timed_out(const Pending& late, size_t behind) const;
  void note_capture(const Fingerprint& first);
  void follow_replay(const Fingerprint& first);
  void graph_gone() noexcept;
  std::string place_of(const Fingerprint& collective) const;
  void collect();
  void wait_until_idle();
  void finish(ncclComm_t comm) const;
  void end_ranks(const std::string& error);

  const Setting setting_;
  std::mutex host_mutex_;
  Communicator* host_;        // null: it has been left, or its ranks have been ended
  mutable std::mutex mutex_;  // of all that follows, and of calls on comm_
  ncclComm_t comm_ = nullptr;
  std::deque<Pending> pending_;
  std::weak_ptr<InGraph> in_graph_;        // the last
  const GraphCapture* capture_ = nullptr;  // whose that is
  int graphs_ = 0;                         // that hold collectives of this group
  bool left_ = false;                      // comm_ ends with the last of them
  Clock::time_point last_done_;
  std::atomic<bool> failed_ = false;
  std::string error_;
  Clock::time_point failed_at_;
};

}  // namespace loom::nccl
