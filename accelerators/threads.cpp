// A pool of workers that claim the parts of one call at a time. What a part is depends on (count, grain, num_threads)
// only; who runs it does not matter, so a caller whose workers are late (parked, preempted) does their parts itself.
#include <loom/accelerators/threads.h>

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <loom/accelerators/cores.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/machine.h>

namespace loom {

namespace {

constexpr int max_threads = 1024;
constexpr auto spin_time = std::chrono::microseconds(100);  // a wake from the kernel costs about as much

// A mask smaller than the machine may have been divided among the ranks by a launcher that binds them, or be one that
// they share: what can be known without asking the others. Where ranks meet, suggest_num_threads says it exactly.
int default_num_threads() {
  const int asked = positive_from_environment("LOOM_NUM_THREADS");
  check(asked >= 0, "LOOM_NUM_THREADS: expected a positive number, got '", std::getenv("LOOM_NUM_THREADS"), "'");
  if (asked > 0) return std::min(asked, max_threads);
  const int online = static_cast<int>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  return std::clamp(std::min(available_cores(), online / local_ranks()), 1, max_threads);
}

std::atomic<int> thread_count = 0;  // 0: not asked yet
std::atomic<bool> thread_count_chosen = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Waits for a condition by looking; false when the spin time has passed without it.
template <class Condition>
bool spin_until(const Condition& condition, bool allowed) {
  if (condition()) return true;
  if (!allowed) return false;
  const auto deadline = std::chrono::steady_clock::now() + spin_time;
  do {
    for (int i = 0; i < 64; ++i) {
      if (condition()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

[[gnu::tls_model("initial-exec")]] thread_local constinit bool inside_a_part = false;  // or keeping to one thread

struct Job {
  int64_t count = 0;
  int parts = 0;
  threads_detail::Body body = nullptr;
  void* context = nullptr;

  void run(int part) const {
    const int64_t size = count / parts, longer = count % parts;  // the first parts are longer by one
    const int64_t begin = part * size + std::min<int64_t>(part, longer);
    struct Mark {
      bool before = std::exchange(inside_a_part, true);
      ~Mark() { inside_a_part = before; }
    } const mark;
    body(context, begin, begin + size + (part < longer ? 1 : 0));
  }
  void run_all() const {
    for (int part = 0; part < parts; ++part) run(part);
  }
};

class Pool {
 public:
  // False when another call has the pool; nothing was done then.
  bool try_run(const Job& job) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    if (stopping_.load(std::memory_order_relaxed) || !have_workers(job.parts - 1)) {
      busy_.store(false, std::memory_order_release);
      return false;
    }
    job_ = job;
    failed_part_ = job.parts;
    failure_ = nullptr;
    pending_.store(static_cast<uint32_t>(job.parts), std::memory_order_relaxed);
    publish(job.parts);
    work();
    wait_for_others();
    const std::exception_ptr failure = std::exchange(failure_, nullptr);
    busy_.store(false, std::memory_order_release);
    if (failure) std::rethrow_exception(failure);
    return true;
  }

  // Ends the workers. When a call is under way (exit in the middle of work) they are left to the system instead.
  void stop() {
    if (inside_a_part || busy_.exchange(true, std::memory_order_acquire)) return;
    stopping_.store(true);
    epoch_.fetch_add(1);
    epoch_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    busy_.store(false, std::memory_order_release);
  }

  Pool* before_fork = nullptr;  // keeps what a forked child cannot use reachable

 private:
  bool have_workers(int wanted) {
    may_spin_.store(num_threads() <= available_cores(), std::memory_order_relaxed);
    try {
      while (static_cast<int>(workers_.size()) < wanted)
        workers_.emplace_back([this, turn = static_cast<int>(workers_.size())] { serve(turn); });
    } catch (const std::system_error&) {  // no more threads to be had: those that exist do the parts
    }
    return !workers_.empty();
  }

  // ticket_: 32 bits of epoch, 16 of the number of parts, 16 of the next part. One word, so that whoever claims a part
  // claims it from the call that he looked at; and a call cannot end, nor job_ change, while a claimed part runs.
  void publish(int parts) {
    caller_core_.store(current_core(), std::memory_order_relaxed);
    const uint64_t epoch = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(epoch << 32 | static_cast<uint64_t>(parts) << 16);
    epoch_.fetch_add(1);
    if (parts > static_cast<int>(workers_.size())) {
      epoch_.notify_all();
    } else {
      for (int i = 1; i < parts; ++i) epoch_.notify_one();
    }
  }

  static bool has_parts(uint64_t ticket) { return (ticket & 0xffff) < (ticket >> 16 & 0xffff); }

  // Claims and runs parts until none is left.
  void work() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (has_parts(ticket)) {
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
      run_part(static_cast<int>(ticket & 0xffff));
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void run_part(int part) {
    try {
      job_.run(part);
    } catch (...) {
      const std::lock_guard lock(failure_mutex_);
      if (part < failed_part_) {
        failed_part_ = part;
        failure_ = std::current_exception();
      }
    }
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }

  void wait_for_others() {
    const auto done = [this] { return pending_.load(std::memory_order_acquire) == 0; };
    if (spin_until(done, may_spin_.load(std::memory_order_relaxed))) return;
    for (uint32_t left; (left = pending_.load(std::memory_order_acquire)) != 0;) pending_.wait(left);
  }

  // The system may start or wake a worker on the core of a caller who keeps it busy, and part the two only after tens
  // of milliseconds.
  // False: it is there still.
  bool leave_caller(int turn) {
    const int caller = caller_core_.load(std::memory_order_relaxed);
    const bool meets = may_spin_.load(std::memory_order_relaxed) && caller >= 0 && caller == current_core();
    return !meets || leave_core(caller, turn);
  }

  void serve(int turn) {
    int tries = 3;  // some systems let no thread move; others may have moved it back at once
    while (true) {
      const auto wake = [this] { return has_parts(ticket_.load()) || stopping_.load(); };
      if (!spin_until(wake, may_spin_.load(std::memory_order_relaxed))) {
        const uint32_t seen = epoch_.load();
        if (!wake()) epoch_.wait(seen);
      }
      if (stopping_.load()) return;
      if (tries > 0 && !leave_caller(turn)) --tries;
      work();
    }
  }

  alignas(64) std::atomic<uint64_t> ticket_ = 0;
  alignas(64) std::atomic<uint32_t> pending_ = 0;  // parts not finished
  alignas(64) std::atomic<uint32_t> epoch_ = 0;    // what parked workers sleep on
  std::atomic<int> caller_core_ = -1;
  std::atomic<bool> busy_ = false, stopping_ = false, may_spin_ = true;
  Job job_;
  std::mutex failure_mutex_;
  int failed_part_ = 0;
  std::exception_ptr failure_;
  std::vector<std::thread> workers_;
};

// Never destroyed: work may come from static destructors, and finds a pool that runs it serially.
std::atomic<Pool*> the_pool = nullptr;

Pool* make_pool() {
  Pool* const fresh = new Pool;
  fresh->before_fork = the_pool.load(std::memory_order_relaxed);
  the_pool.store(fresh, std::memory_order_release);
  return fresh;
}

Pool& pool() {
  static Pool* const first = [] {
    pthread_atfork(nullptr, nullptr, [] { make_pool(); });  // a child has none of the workers
    static struct AtExit {
      ~AtExit() { the_pool.load(std::memory_order_acquire)->stop(); }
    } at_exit;
    return make_pool();
  }();
  Pool* const current = the_pool.load(std::memory_order_acquire);
  return current != nullptr ? *current : *first;
}

}  // namespace

int num_threads() {
  int n = thread_count.load(std::memory_order_relaxed);
  if (n == 0) {
    const int fresh = default_num_threads();
    n = thread_count.compare_exchange_strong(n, fresh, std::memory_order_relaxed) ? fresh : n;
  }
  return n;
}

void set_num_threads(int n) {
  check(n >= 1 && n <= max_threads, "set_num_threads: expected 1 to ", max_threads, " threads, got ", n);
  thread_count_chosen.store(true, std::memory_order_relaxed);
  thread_count.store(n, std::memory_order_relaxed);
}

void suggest_num_threads(int n) {
  check(n >= 1, "suggest_num_threads: expected at least 1 thread, got ", n);
  if (thread_count_chosen.load(std::memory_order_relaxed) || std::getenv("LOOM_NUM_THREADS") != nullptr) return;
  thread_count.store(std::min(n, max_threads), std::memory_order_relaxed);
}

void keep_to_one_thread() { inside_a_part = true; }

void threads_detail::run(int64_t count, int64_t grain, Body body, void* context) {
  const int64_t parts = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, num_threads());
  const Job job{count, static_cast<int>(parts), body, context};
  if (parts == 1 || inside_a_part || !pool().try_run(job)) job.run_all();
}

}  // namespace loom
