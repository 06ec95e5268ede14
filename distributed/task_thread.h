// A thread that runs tasks in the order in which they were given.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include <loom/accelerators/profile.h>
#include <loom/distributed/pending.h>

namespace loom {

class TaskThread {
 public:
  // looks: how often it, and who waits for a task, looks before it sleeps. name: in traces.
  TaskThread(int looks, std::string name)
      : queue_(std::make_shared<Queue>(looks)), thread_([q = queue_, name = std::move(name), rank = profile::rank()] {
          profile::name_thread(name, rank);
          run(*q);
        }) {}
  // Finishes all tasks first.
  ~TaskThread() {
    stop();
    if (thread_.joinable()) thread_.join();
  }
  TaskThread(const TaskThread&) = delete;
  TaskThread& operator=(const TaskThread&) = delete;

  Work push(std::function<void()> task) {
    auto work = std::make_shared<Pending>(queue_->looks);
    const std::lock_guard lock(queue_->mutex);
    queue_->tasks.push_back({std::move(task), work});
    queue_->pushed.fetch_add(1, std::memory_order_release);
    queue_->changed.notify_all();
    return Work(work);
  }
  bool idle() const {
    const std::lock_guard lock(queue_->mutex);
    return queue_->tasks.empty();
  }
  void wait_until_idle() const {
    std::unique_lock lock(queue_->mutex);
    queue_->changed.wait(lock, [&] { return queue_->tasks.empty(); });
  }
  // Leaves the thread to itself: its task will not end.
  void detach() {
    stop();
    if (thread_.joinable()) thread_.detach();
  }

 private:
  struct Task {
    std::function<void()> run;
    std::shared_ptr<Pending> work;
  };
  struct Queue {
    explicit Queue(int looks) : looks(looks) {}
    const int looks;
    std::atomic<uint64_t> pushed = 0;
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Task> tasks;  // the first one is running
    bool stopping = false;
  };

  void stop() {
    const std::lock_guard lock(queue_->mutex);
    queue_->stopping = true;
    queue_->changed.notify_all();
  }

  static void run(Queue& queue) {
    std::unique_lock lock(queue.mutex);
    for (uint64_t taken = 0;; ++taken) {
      if (queue.tasks.empty() && !queue.stopping) {
        lock.unlock();
        spin_until(queue.looks, [&] { return queue.pushed.load(std::memory_order_acquire) > taken; });
        lock.lock();
      }
      queue.changed.wait(lock, [&] { return queue.stopping || !queue.tasks.empty(); });
      if (queue.tasks.empty()) return;
      Task& task = queue.tasks.front();  // a deque's elements stay where they are
      lock.unlock();
      std::string error;
      try {
        task.run();
      } catch (const std::exception& e) {
        error = e.what();
        if (error.empty()) error = "an exception without a text";
      }
      const std::shared_ptr<Pending> work = task.work;
      lock.lock();
      queue.tasks.pop_front();
      queue.changed.notify_all();
      error.empty() ? work->finish() : work->fail(error);
    }
  }

  std::shared_ptr<Queue> queue_;
  std::thread thread_;
};

}  // namespace loom
