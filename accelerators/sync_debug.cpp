#include <loom/accelerators/sync_debug.h>

#include <iostream>
#include <utility>

#include <loom/accelerators/error.h>

namespace loom {

namespace {

thread_local SyncDebugMode mode_of_thread = SyncDebugMode::off;

}  // namespace

SyncDebugMode sync_debug_mode() { return mode_of_thread; }

void note_host_wait(const std::string& for_what) {
  check(mode_of_thread != SyncDebugMode::error, "the host would wait for ", for_what,
        ", which SyncDebugMode::error forbids");
  if (mode_of_thread == SyncDebugMode::warn) std::cerr << str("loom: the host waits for ", for_what, "\n");
}

SyncDebugScope::SyncDebugScope(SyncDebugMode mode) : before_(std::exchange(mode_of_thread, mode)) {}

SyncDebugScope::~SyncDebugScope() { mode_of_thread = before_; }

}  // namespace loom
