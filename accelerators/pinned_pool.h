// Memory of the host that devices read and write by themselves. Pinning pages is slow and waits for the device, so
// blocks are kept; one that was released is handed out again once all copies that it took part in are over.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <loom/accelerators/block_pool.h>
#include <loom/accelerators/memory.h>

namespace loom {

class PinnedPool {
 public:
  explicit PinnedPool(BlockSource& source) : source_(source) {}
  ~PinnedPool();
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // Bytes as handed out: a power of two, or one and a quarter, a half, three quarters of one; at least `smallest`.
  static constexpr size_t smallest = 512;
  static size_t rounded(size_t bytes);

  // bytes > 0. Throws OutOfMemory.
  void* allocate(size_t bytes);
  void release(void* block) noexcept;
  // The block that holds `address` is in use until `event`, recorded in `stream` after a copy, has happened; the pool
  // drops it.
  void use_until(const void* address, void* stream, BlockSource::Event event);
  bool contains(const void* address) const;  // a block that is in use

  MemoryStats stats() const;
  void empty_cache();  // all blocks that are free, after waiting for their copies

 private:
  struct Block {
    size_t bytes;
    bool released = false;
    std::vector<std::pair<void*, BlockSource::Event>> uses = {};  // by stream, the last
  };
  using Blocks = std::map<char*, Block>;

  Blocks::iterator holding(const void* address);
  Blocks::const_iterator holding(const void* address) const;
  void* take(size_t bytes);
  void* from_source(size_t bytes);
  void collect(bool wait);
  void give_back();
  bool is_over(Block& block, bool wait);

  BlockSource& source_;
  mutable std::mutex mutex_;
  Blocks blocks_;
  std::vector<char*> waiting_;               // released, with copies that may go on
  std::set<std::pair<size_t, char*>> free_;  // by bytes
  MemoryStats stats_;
};

}  // namespace loom
