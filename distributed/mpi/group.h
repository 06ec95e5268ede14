// One group of ranks over MPI: three private communicators (collectives; messages; their labels and watchdogs' notes)
// and what runs on them.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <loom/distributed/mpi.h>
#include <loom/distributed/mpi/host.h>
#include <loom/distributed/mpi/messages.h>
#include <loom/distributed/mpi/notes.h>
#include <loom/distributed/mpi/process.h>
#include <loom/distributed/mpi/transport.h>
#include <loom/distributed/mpi/window.h>
#include <loom/distributed/task_thread.h>

namespace loom::mpi {

class Group : public Watched, public std::enable_shared_from_this<Group> {
 public:
  // Takes comm over. Collective. Threaded where options.mode says so; automatic must have been decided before.
  static std::shared_ptr<Group> make(MPI_Comm comm, const MpiOptions& options, const Host& host);
  Group(MPI_Comm comm, const MpiOptions& options, const Host& host);

  MPI_Comm comm() const { return collectives_comm_; }
  const MpiOptions& options() const { return options_; }
  const Host& host() const { return host_; }
  Work submit(Collective c);
  // Runs f where the collectives run, after those issued before; returns when it has run.
  void in_order(const std::function<void()>& f);
  std::shared_ptr<void> allocate(size_t bytes);  // in_order; null where the ranks have no memory together
  // Waits for what was issued and for the other ranks to leave too. With an exception on its way the others may never
  // come: then this waits for a moment only.
  void leave(bool by_exception);

  void watch() override;
  void say_goodbye() override;
  void await_goodbyes() override;

 private:
  void run(const Collective& c);
  bool idle() const { return messages_->idle() && (!thread_ || thread_->idle()); }
  void release();
  void watch_leavers(const FlightRecorder::Snapshot& now) const;
  void watch_messages();
  void waits_for_leaver(int rank, const Notes::Received& goodbye, const std::string& in) const;
  void tell_goodbye(bool failed);
  [[noreturn]] void time_out(const Fingerprint& f);
  std::string who_is_missing(const FlightRecorder::Snapshot& own);
  std::string names_of(const std::vector<int>& ranks) const;  // as ranks of the job

  const MpiOptions options_;
  const Host host_;
  const bool many_threads_;
  MPI_Comm collectives_comm_, messages_comm_, notes_comm_;
  std::vector<int> world_ranks_;
  FlightRecorder recorder_;
  int64_t seen_ = 0;  // by the watchdog: the number of the collective under way, and since when it is
  std::chrono::steady_clock::time_point seen_since_;
  Transport transport_;
  std::unique_ptr<Window> window_;  // where all ranks are on one host
  Notes notes_;
  std::shared_ptr<Messages> messages_;
  std::unique_ptr<TaskThread> thread_;  // threaded mode
  std::atomic<bool> broken_ = false;    // a collective failed in the middle
  std::atomic<bool> said_goodbye_ = false, released_ = false;
};

}  // namespace loom::mpi
