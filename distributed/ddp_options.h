// What DistributedDataParallel can be told, and what it tells.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace loom {

class CommHook;

struct DdpOptions {
  std::optional<double> bucket_cap_mb = {};  // default: 1 MiB for the bucket that is ready first, 25 MiB for the others
  bool find_unused_parameters = false;       // the graph may leave out parameters, others on each rank and step
  bool static_graph = false;                 // each step uses the same parameters the same number of times
  bool broadcast_buffers = true;             // rank 0's buffers, before a forward
  bool init_sync = true;                     // compare the models, then take rank 0's values
  bool gradient_as_bucket_view = true;       // gradients live in the buckets: saves their size in memory
  std::shared_ptr<CommHook> comm_hook = {};  // how gradients are averaged (comm_hook.h); default: as they are
  std::function<void(const std::string&)> warn = {};  // default: rank 0 prints to the standard error
};

struct DdpStatistics {
  using Time = std::chrono::steady_clock::time_point;
  static Time now() { return std::chrono::steady_clock::now(); }
  struct Launch {
    int bucket = 0;
    Time launched, finished;
  };

  std::string comm_hook;                         // its name
  int64_t first_bucket_cap = 0, bucket_cap = 0;  // bytes
  int parameters = 0;                            // trained ones
  int64_t parameter_bytes = 0;
  std::vector<std::vector<int>> buckets;  // indices of the parameters in each, now
  std::vector<int64_t> bucket_sizes;      // bytes, as of the start
  std::vector<int64_t> rebuilt_bucket_sizes;
  bool has_rebuilt = false;

  // Of the last synchronised backward.
  int64_t iterations = 0;                            // how many there were
  std::vector<int> ready_order;                      // indices of the parameters as their gradients became ready
  int unused_parameters = 0;                         // without a gradient on this rank
  Time forward_start, backward_start, backward_end;  // start: first gradient ready; end: all computed
  Time last_ready;                                   // last gradient ready
  std::vector<Launch> launches;  // in the order of issue; on a GPU, finished: when its stream was told to wait
};

}  // namespace loom
