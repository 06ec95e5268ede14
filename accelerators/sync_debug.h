// Finds where the host waits for a GPU: torch.cuda.set_sync_debug_mode, for a scope.
//
//   {
//     const SyncDebugScope scope(SyncDebugMode::error);
//     train_step();  // item(), to(cpu), printing, synchronize() ... are an Error here
//   }
#pragma once

#include <cstdint>
#include <string>

namespace loom {

enum class SyncDebugMode : uint8_t {
  off,
  warn,   // said on stderr, each time
  error,  // an Error in place of the wait
};

// Of this thread. What the driver waits for by itself (allocations) is not seen.
SyncDebugMode sync_debug_mode();
// Called where the host is about to wait; for: "cuda:0".
void note_host_wait(const std::string& for_what);

class SyncDebugScope {
 public:
  explicit SyncDebugScope(SyncDebugMode mode);
  ~SyncDebugScope();
  SyncDebugScope(const SyncDebugScope&) = delete;
  SyncDebugScope& operator=(const SyncDebugScope&) = delete;

 private:
  SyncDebugMode before_;
};

}  // namespace loom
