// send and recv over an MPI communicator of their own: started by the caller, progressed by whoever waits and, where
// MPI allows it, by a thread, so that they complete whatever the collectives are doing.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <loom/distributed/collective.h>
#include <loom/distributed/mpi/call.h>
#include <loom/distributed/pending.h>

namespace loom::mpi {

class Messages : public std::enable_shared_from_this<Messages> {
 public:
  using Clock = std::chrono::steady_clock;

  Messages(MPI_Comm comm, int64_t chunk_elements, bool with_thread);
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  Work post(const Collective& c);
  // True when some message was completed.
  bool progress();
  bool idle() const;

  struct Oldest {
    Collective collective;
    Clock::time_point since;
  };
  std::optional<Oldest> oldest() const;

 private:
  struct Active {
    Collective collective;
    Clock::time_point since;
    std::vector<MPI_Request> requests;
    std::shared_ptr<Pending> work;
  };
  class Waiting;

  void start(Active& active);
  void settle(Active& active, const std::vector<MPI_Status>& statuses, int code) const;
  void run();

  const MPI_Comm comm_;
  const int64_t chunk_;
  const bool with_thread_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Active> active_;
  bool stopping_ = false;
  std::thread thread_;  // from the first message on
};

// Gives the processor away, for longer when there has been nothing to do for long.
class Backoff {
 public:
  void pause() {
    if (++idle_ < 1000)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  void reset() { idle_ = 0; }

 private:
  int idle_ = 0;
};

}  // namespace loom::mpi
