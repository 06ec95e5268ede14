// The Work of a collective that another thread completes.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>

#include <loom/accelerators/error.h>
#include <loom/distributed/work.h>

namespace loom {

class Pending : public Work::State {
 public:
  void wait() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_; });
    if (!error_.empty()) throw Error(error_);
  }
  bool done() const override {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  // The first of these calls counts. The error must not be empty.
  void finish() { complete({}); }
  void fail(const std::string& error) { complete(error); }

 private:
  void complete(const std::string& error) {
    const std::lock_guard lock(mutex_);
    if (done_) return;
    done_ = true;
    error_ = error;
    changed_.notify_all();  // under the lock: the waiter may destroy this object right after
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::string error_;
};

}  // namespace loom
