// Ranks as threads of one process: what tests run on, with and without ThreadSanitizer.
#pragma once

#include <chrono>

#include <loom/distributed/communicator.h>

namespace loom {

struct ThreadsOptions {
  std::chrono::microseconds delay{0};  // each collective takes this much longer: tests of overlap
  CommunicatorOptions communicator = CommunicatorOptions::from_environment();
};

void run_threads(int n, const std::function<void(Communicator&)>& f, const ThreadsOptions& options);

}  // namespace loom
