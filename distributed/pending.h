// The Work of a collective that another thread completes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>

#include <loom/accelerators/error.h>
#include <loom/distributed/spin.h>
#include <loom/distributed/work.h>

namespace loom {

class Pending : public Work::State {
 public:
  // How often a waiting thread looks before it lets the processor go.
  explicit Pending(int looks = 0) : looks_(looks) {}

  void wait() override {
    if (!spin_until(looks_, [&] { return done(); })) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return done(); });
    }
    if (!error_.empty()) throw Error(error_);
  }
  bool done() const override { return done_.load(std::memory_order_acquire); }
  // The first of these calls counts. The error must not be empty.
  void finish() { complete({}); }
  void fail(const std::string& error) { complete(error); }

 private:
  void complete(const std::string& error) {
    const std::lock_guard lock(mutex_);
    if (done()) return;
    error_ = error;
    done_.store(true, std::memory_order_release);
    changed_.notify_all();  // under the lock: the waiter may destroy this object right after
  }

  const int looks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> done_ = false;
  std::string error_;
};

}  // namespace loom
