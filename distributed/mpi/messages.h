// send and recv over an MPI communicator of their own: started by the caller, progressed by whoever waits and, where
// MPI allows it, by a thread, so that they complete whatever the collectives are doing. A label travels with each
// message, so that the receiver knows what was sent.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <loom/distributed/collective.h>
#include <loom/distributed/mpi/call.h>
#include <loom/distributed/mpi/traffic.h>
#include <loom/distributed/pending.h>

namespace loom::mpi {

class Messages : public std::enable_shared_from_this<Messages> {
 public:
  using Clock = std::chrono::steady_clock;

  // Labels go over a communicator of which they leave tag 0 to others.
  Messages(MPI_Comm comm, MPI_Comm labels, int64_t chunk_elements, bool with_thread);
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  // Called by whoever waits for long: where no watchdog may call MPI.
  void call_while_waiting(std::function<void()> f) { while_waiting_ = std::move(f); }

  Work post(const Collective& c);
  // True when some message was completed.
  bool progress();
  bool idle() const;

  struct Oldest {
    Collective collective;
    Clock::time_point since;
  };
  std::optional<Oldest> oldest() const;

  std::vector<Traffic> traffic_with(int rank) const;
  // What waits for a message that this rank, which will issue nothing more, has not issued.
  std::optional<Collective> waiting_in_vain(int rank, const std::vector<Traffic>& issued_there) const;

 private:
  struct Label {
    int64_t count = 0;
    DType dtype = DType::u8;
  };
  struct Active {
    Collective collective;
    Clock::time_point since;
    int64_t number = 0;                 // of its kind, with its peer and tag, from 1
    Label label;                        // sent or received
    std::vector<MPI_Request> requests;  // the label's first
    std::shared_ptr<Pending> work;
  };
  class Waiting;

  void start(Active& active);
  void settle(Active& active, int code) const;
  void run();

  const MPI_Comm comm_, labels_comm_;
  int rank_ = 0;
  const int64_t chunk_;
  const bool with_thread_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::list<Active> active_;
  std::vector<MPI_Status> statuses_;                                   // of the message being looked at
  std::unordered_map<int, std::unordered_map<int, Traffic>> traffic_;  // by rank and tag
  std::function<void()> while_waiting_;
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
  bool for_long() const { return idle_ >= 1000; }
  void reset() { idle_ = 0; }

 private:
  int idle_ = 0;
};

}  // namespace loom::mpi
