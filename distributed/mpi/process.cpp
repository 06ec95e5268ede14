#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <loom/accelerators/error.h>
#include <loom/distributed/mpi.h>
#include <loom/distributed/mpi/call.h>
#include <loom/distributed/mpi/process.h>
#include <loom/distributed/mpi/rendezvous.h>

namespace loom {
namespace mpi {
namespace {

using namespace std::chrono_literals;

struct Process {
  std::mutex mutex;
  bool started = false, owned = false;
  std::terminate_handler previous = nullptr;

  std::mutex groups_mutex;  // held while groups are watched
  std::condition_variable changed;
  std::vector<std::shared_ptr<Watched>> groups, abandoned;
  std::chrono::milliseconds period = 50ms;
  std::thread watchdog;
  bool watching = false;
};

// Never destroyed: exit handlers and threads use it to the end.
Process& process() {
  static Process* const p = new Process;
  return *p;
}

std::atomic<bool> aborting = false;

// A rank that goes on to MPI_Finalize while others wait for it would hang: all say goodbye first.
void finish() {
  Process& p = process();
  if (!running() || aborting) return;
  std::unique_lock lock(p.groups_mutex);
  if (!p.abandoned.empty()) abort_job("ended by an error while the other ranks were at work");
  const auto groups = p.groups;
  lock.unlock();
  for (const auto& g : groups) g->say_goodbye();
  for (const auto& g : groups) g->await_goodbyes();
  end_together();
  MPI_Finalize();
}

[[noreturn]] void on_terminate() {
  std::string reason = "terminated";
  if (const std::exception_ptr e = std::current_exception()) {
    try {
      std::rethrow_exception(e);
    } catch (const std::exception& error) {
      reason = error.what();
    } catch (...) {
      reason = "an exception of unknown type";
    }
  }
  abort_job(reason);
}

void watch_groups() {
  Process& p = process();
  std::unique_lock lock(p.groups_mutex);
  while (p.watching) {
    for (const auto& g : p.groups) g->watch();
    p.changed.wait_for(lock, p.period);
  }
}

// Waits, as MPI_Init does, for all ranks of the job; nothing else watches yet.
void initialise(std::chrono::milliseconds timeout) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::thread watcher([&] {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, timeout, [&] { return done; }))
      abort_job(str("timeout after ", static_cast<double>(timeout.count()) / 1000,
                    " s in starting MPI: not all ranks of the job have come"),
                42);
  });
  int level = MPI_THREAD_SINGLE;
  const int status = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level);
  {
    const std::lock_guard lock(mutex);
    done = true;
    changed.notify_all();
  }
  watcher.join();
  check_status(status, "MPI_Init_thread");
}

// As the launcher says; MPI may not be running.
int launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"})
    if (const char* const text = std::getenv(name)) return std::atoi(text);
  return 0;
}

}  // namespace

void start(std::chrono::milliseconds timeout) {
  Process& p = process();
  const std::lock_guard lock(p.mutex);
  int initialised = 0, finalised = 0;
  MPI_Finalized(&finalised);
  check(finalised == 0, "MPI has been finalised and cannot be started again in this process");
  MPI_Initialized(&initialised);
  if (initialised != 0 || p.started) return;
  initialise(timeout);
  p.started = p.owned = true;
  p.previous = std::set_terminate(on_terminate);
  std::atexit(finish);
}

bool running() {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  return initialised != 0 && finalised == 0;
}

bool many_threads() {
  int level = MPI_THREAD_SINGLE;
  check_status(MPI_Query_thread(&level), "MPI_Query_thread");
  return level == MPI_THREAD_MULTIPLE;
}

std::string thread_level() {
  int level = MPI_THREAD_SINGLE;
  check_status(MPI_Query_thread(&level), "MPI_Query_thread");
  return level == MPI_THREAD_SINGLE       ? "MPI_THREAD_SINGLE"
         : level == MPI_THREAD_FUNNELED   ? "MPI_THREAD_FUNNELED"
         : level == MPI_THREAD_SERIALIZED ? "MPI_THREAD_SERIALIZED"
                                          : "MPI_THREAD_MULTIPLE";
}

void add(const std::shared_ptr<Watched>& group, std::chrono::milliseconds timeout) {
  Process& p = process();
  const std::lock_guard lock(p.groups_mutex);
  p.groups.push_back(group);
  p.period = std::clamp<std::chrono::milliseconds>(timeout / 4, 1ms, p.period);
  if (p.watching) return;
  p.watching = true;
  p.watchdog = std::thread(watch_groups);
}

void remove(const Watched* group) {
  Process& p = process();
  std::thread idle;
  {
    const std::lock_guard lock(p.groups_mutex);
    std::erase_if(p.groups, [&](const auto& g) { return g.get() == group; });
    if (p.groups.empty() && p.watching) {
      p.watching = false;
      p.changed.notify_all();
      idle = std::move(p.watchdog);
    }
  }
  if (idle.joinable()) idle.join();
}

void abandon(std::shared_ptr<Watched> group) {
  Process& p = process();
  const std::lock_guard lock(p.groups_mutex);
  p.abandoned.push_back(std::move(group));
}

}  // namespace mpi

void abort_job(const std::string& reason, int exit_code) {
  if (mpi::aborting.exchange(true))
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));  // another thread is ending the job
  int rank = mpi::launched_rank();
  const bool running = mpi::running();
  if (running) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::fflush(stdout);
  std::fprintf(stderr, "[rank %d] %s\n", rank, reason.c_str());
  std::fflush(stderr);
  if (running) std::this_thread::sleep_for(std::chrono::milliseconds(100));  // mpirun passes it on before its own words
  std::thread([exit_code] {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    ::_exit(exit_code);
  }).detach();
  if (running) MPI_Abort(MPI_COMM_WORLD, exit_code);
  ::_exit(exit_code);
}

}  // namespace loom
