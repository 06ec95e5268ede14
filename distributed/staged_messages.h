// send and recv of memory of a GPU, each as a whole through pinned memory.
#pragma once

#include <memory>
#include <mutex>

#include <loom/distributed/communicator.h>
#include <loom/distributed/task_thread.h>

namespace loom {

class StagedMessages {
 public:
  // ranks: a communicator that this one alone sends over; it may be in a collective meanwhile. threads: whether threads
  // may use it; without, send waits for its data.
  StagedMessages(Communicator& ranks, Device device, bool threads);
  Work post(const Collective& message);
  bool idle() const { return !sends_ || sends_->idle(); }

 private:
  Work send(const Collective& message);
  Work recv(const Collective& message);

  Communicator& ranks_;
  const Device device_;
  std::mutex mutex_;                   // of posting
  std::unique_ptr<TaskThread> sends_;  // once the device has fetched what they send
};

}  // namespace loom
