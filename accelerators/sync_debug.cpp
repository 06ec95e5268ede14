#include <loom/accelerators/sync_debug.h>

#include <utility>

namespace loom {

namespace {

thread_local SyncDebugMode mode_of_thread = SyncDebugMode::off;

}  // namespace

SyncDebugMode sync_debug_mode() { return mode_of_thread; }

SyncDebugScope::SyncDebugScope(SyncDebugMode mode) : before_(std::exchange(mode_of_thread, mode)) {}

SyncDebugScope::~SyncDebugScope() { mode_of_thread = before_; }

}  // namespace loom
