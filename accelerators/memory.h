// Caching block allocator: freed blocks are kept and handed out again, because fresh pages cost more than most kernels
// (a page fault every 4 KB).
#pragma once

#include <cstddef>
#include <cstdint>

#include <loom/accelerators/device.h>
#include <loom/accelerators/error.h>

namespace loom {

// The text says what was asked for, what is in use, cached, and allowed: all in bytes.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

// Bytes as handed out (rounded up to the block's size class, large ones to whole pages).
struct MemoryStats {
  int64_t allocated = 0;       // in use now
  int64_t peak_allocated = 0;  // highest since the start or reset_peak_memory_stats
  int64_t cached = 0;          // freed, kept for reuse: those that may have pages
  // Of these; LOOM_CACHE_LIMIT, by default a quarter of the memory that the process may use, divided among the node's
  // ranks.
  int64_t cache_limit = 0;
  int64_t allocations = 0;  // blocks asked for since the start
  int64_t cache_hits = 0;   // of these, served without asking the system
};

MemoryStats memory_stats(Device device = {});
void reset_peak_memory_stats(Device device = {});
// Gives all cached blocks back to the system; of a GPU, pinned ones too.
void empty_cache(Device device = {});
// Of the host's memory that a GPU reads by itself (tensor/pinned.h).
MemoryStats pinned_memory_stats(Device device);

}  // namespace loom
