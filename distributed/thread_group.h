// What ranks that are threads share: the groups, their collectives under way, and why they ended.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <loom/distributed/pending.h>
#include <loom/distributed/threads.h>

namespace loom {

class ThreadGroup;

// All groups of one run_threads. They end together, as the processes of a job do.
class ThreadWorld {
 public:
  explicit ThreadWorld(const ThreadsOptions& options) : options(options) {}

  // The first call counts. rank: whose fault it is; -1: nobody's in particular.
  void abort(const std::string& reason, int rank = -1);
  int culprit() const;  // the rank given to that call, -1 without one

  // The same group for all who ask with the same parent, number of the split and color; `size` of them.
  std::shared_ptr<ThreadGroup> group(uint64_t parent, uint64_t split, int color, int size);
  void forget(const ThreadGroup* group);

  const ThreadsOptions options;

 private:
  struct Forming {
    std::shared_ptr<ThreadGroup> group;
    int missing = 0;
  };
  mutable std::mutex mutex_;  // taken before a group's, never while holding one
  std::string aborted_;
  int culprit_ = -1;
  uint64_t made_ = 0;
  std::vector<ThreadGroup*> groups_;
  std::map<std::tuple<uint64_t, uint64_t, int>, Forming> forming_;
};

// One group. Its thread executes each collective when all ranks have issued it, in order, and watches the time.
class ThreadGroup {
 public:
  ThreadGroup(uint64_t id, int size, ThreadWorld& world);
  ~ThreadGroup();
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  uint64_t id() const { return id_; }
  Work submit(int rank, Collective c);
  bool busy(int rank) const;  // something that this rank issued is not done
  void leave(int rank);       // this rank issues nothing more; returns when what it issued is done
  // What is pending and what is issued from now on fails with this text.
  void end(const std::string& error);

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    Collective collective;
    std::shared_ptr<Pending> work;
    int rank = 0;
    // For observers, where there were some: when it was issued, and by which rank of all.
    int64_t since = 0;
    int issuer = -1;
  };
  struct Round {  // one collective, as far as the ranks have issued it
    std::vector<Entry> entries;
    Clock::time_point since;
  };
  struct Message {  // a send or a recv whose counterpart is not there yet
    Entry entry;
    Clock::time_point since;
  };

  static Entry entry_of(int rank, Collective c);
  void tell(const Entry& entry, int size, int64_t not_before) const;
  void submit_message(Entry entry);
  void run();
  void run_front(std::unique_lock<std::mutex>& lock);
  bool waits_for_nothing(int rank) const;
  bool front_ready() const { return !rounds_.empty() && rounds_.front().entries.size() == static_cast<size_t>(size_); }
  std::vector<int> missing() const;    // ranks that the first round waits for
  Clock::time_point deadline() const;  // of what waits longest; max() when nothing waits
  std::string overdue() const;         // what has passed its deadline, empty if nothing
  std::string deserted() const;        // what waits for a rank that has left

  const uint64_t id_;
  const int size_;
  ThreadWorld& world_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint64_t> issued_;  // rounds, by rank
  uint64_t executed_ = 0;         // number of the first of rounds_
  Clock::time_point last_executed_ = Clock::now();
  std::deque<Round> rounds_;
  std::list<Message> messages_;
  std::vector<bool> left_;
  std::string ended_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace loom
