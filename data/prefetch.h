// Makes the items 0 to count - 1 ahead of their use in threads, and hands them out in order.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <loom/accelerators/profile.h>
#include <loom/accelerators/threads.h>

namespace loom::data {

template <class T>
class Prefetch {
 public:
  // At most `ahead` items are made and not taken. make(i) is called once for each i, from `workers` threads; what it
  // throws, take() throws in item i's turn. 0 workers: the caller of take() makes the item.
  Prefetch(int64_t count, int workers, int64_t ahead, std::function<T(int64_t)> make)
      : count_(count), make_(std::move(make)), slots_(static_cast<size_t>(std::max<int64_t>(1, ahead))) {
    const int threads = static_cast<int>(std::min<int64_t>(workers, count));
    try {
      for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {  // no more threads to be had: those that started must end before the exception goes on
      stop();
      throw;
    }
  }
  ~Prefetch() { stop(); }
  Prefetch(const Prefetch&) = delete;
  Prefetch& operator=(const Prefetch&) = delete;

  bool exhausted() const { return taken_ == count_; }

  // Whether take() would give the next item without waiting for a worker.
  bool ready() {
    if (threads_.empty()) return !exhausted();
    const std::lock_guard lock(mutex_);
    return !exhausted() && slot_of(taken_).full;
  }

  // The next item; not after the last.
  T take() {
    if (threads_.empty()) return make_(taken_++);
    std::unique_lock lock(mutex_);
    Slot& slot = slot_of(taken_);
    ready_.wait(lock, [&] { return slot.full; });
    Slot out = std::exchange(slot, {});
    ++taken_;
    lock.unlock();
    room_.notify_one();
    if (out.error) std::rethrow_exception(out.error);
    return std::move(*out.item);
  }

 private:
  struct Slot {
    std::optional<T> item;
    std::exception_ptr error;
    bool full = false;
  };

  Slot& slot_of(int64_t i) { return slots_[static_cast<size_t>(i) % slots_.size()]; }

  void work() {
    keep_to_one_thread();  // the pool is the trainer's
    profile::name_thread("data loader", rank_);
    std::unique_lock lock(mutex_);
    while (true) {
      room_.wait(lock, [&] { return stopping_ || next_ == count_ || next_ - taken_ < std::ssize(slots_); });
      if (stopping_ || next_ == count_) return;
      const int64_t i = next_++;
      lock.unlock();
      Slot made = run(i);
      lock.lock();
      slot_of(i) = std::move(made);
      ready_.notify_one();
    }
  }
  Slot run(int64_t i) {
    Slot out;
    try {
      out.item.emplace(make_(i));
    } catch (...) {
      out.error = std::current_exception();
    }
    out.full = true;
    return out;
  }
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  const int64_t count_;
  const int rank_ = profile::rank();
  const std::function<T(int64_t)> make_;
  std::mutex mutex_;
  std::condition_variable ready_, room_;  // an item was made; one was taken
  std::vector<Slot> slots_;               // a ring: item i waits in slot i % size
  int64_t next_ = 0, taken_ = 0;          // the next to make, the next to take
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace loom::data
