// Memory of a device whose work runs in streams: segments are taken from the driver once, cut into blocks, and handed
// out again to the stream that freed them, without waiting (the scheme of PyTorch's CUDACachingAllocator).
//
// A freed block may be used again by its own stream at once, as work of a stream runs in order; it goes to another one
// only after its segment has been given back. A block that other streams have used (use_by) is free when they have
// come to where they were at its release.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <unordered_map>
#include <vector>

#include <loom/accelerators/error.h>
#include <loom/accelerators/memory.h>

namespace loom {

// What a pool takes from the driver.
class BlockSource {
 public:
  using Event = void*;
  virtual ~BlockSource() = default;
  virtual void* allocate(size_t bytes) = 0;  // null when there is no more
  virtual void release(void* segment) noexcept = 0;
  virtual Event record(void* stream) = 0;
  virtual bool is_done(Event event) = 0;
  virtual void wait(Event event) = 0;
  virtual void drop(Event event) noexcept = 0;
  // Of the capture that a stream takes part in; 0: none.
  virtual uint64_t capture_of([[maybe_unused]] void* stream) { return 0; }
  // What nobody may read before it is written: new memory, and what has been given back, which `stream` has done with.
  virtual void spoil([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes, [[maybe_unused]] void* stream) {}
};

class BlockPool {
 public:
  // Sizes in bytes. Requests of up to `small` share segments of `small_segment`; of less than `large`, of
  // `medium_segment`; others get a segment of their own, a multiple of `large_step`.
  static constexpr size_t granule = 512, small = size_t{1} << 20, small_segment = size_t{2} << 20,
                          large = size_t{10} << 20, medium_segment = size_t{20} << 20, large_step = size_t{2} << 20;

  // name: of the device, for errors. limit: bytes that the pool may take from the source; 0: as many as there are.
  BlockPool(BlockSource& source, std::string name, size_t limit = 0);
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // bytes > 0. Throws OutOfMemory.
  void* allocate(size_t bytes, void* stream);
  void release(void* block) noexcept;
  // Work in `stream`, not the block's own, reads or writes what lies at this address, which may be inside a block.
  // Memory of others is left to them.
  void use_by(void* address, void* stream);

  // Until the end, allocations in `stream` and in those that the source finds in the same capture come from memory that
  // nothing else uses: addresses that a captured graph has stay its own. What they release meanwhile and was allocated
  // before stays until the graph is gone, as it may use it. The number is that of an earlier capture, to go on in its
  // memory, or 0 for a new one; returns it.
  uint64_t begin_capture(void* stream, uint64_t pool = 0);
  void end_capture(void* stream);
  void forget_capture(uint64_t pool);  // its graph is gone: free memory of it goes back at the next empty_cache

  MemoryStats stats() const;
  void reset_peak();
  // Gives back all segments that are free as a whole, after waiting for what other streams still do with them.
  void empty_cache();
  // Of each block in use its address and bytes, as asked for.
  std::vector<std::pair<void*, size_t>> in_use() const;

 private:
  struct Block {
    char* begin;
    size_t bytes, asked;
    void* stream;
    uint64_t pool;
    bool small_segment;
    bool free = false;
    Block* before = nullptr;  // neighbours in the segment
    Block* after = nullptr;
    std::vector<void*> users = {};
  };
  struct BySize {
    bool operator()(const Block* a, const Block* b) const;
  };
  struct Waiting {
    Block* block;
    std::vector<BlockSource::Event> events;
  };
  using FreeBlocks = std::set<Block*, BySize>;

  Block* find(size_t bytes, void* stream, uint64_t pool, bool in_small);
  Block* take_segment(size_t bytes, void* stream, uint64_t pool, bool in_small);
  void cut(Block* block, size_t bytes);
  void make_free(Block* block);
  Block* merge(Block* first);
  uint64_t capture_at(void* stream) const;  // the pool that its allocations come from; 0: none's
  bool keep_for_capture(Block* block);
  void free_kept(std::unordered_map<uint64_t, std::vector<Block*>>& kept, uint64_t pool);
  void collect(bool wait);
  void give_back();
  [[noreturn]] void fail_out_of_memory(size_t bytes) const;

  BlockSource& source_;
  const std::string name_;
  const size_t limit_;
  mutable std::mutex mutex_;
  std::map<void*, std::unique_ptr<Block>> blocks_;  // by address
  FreeBlocks free_;
  std::vector<Waiting> waiting_;
  std::unordered_map<void*, uint64_t> capturing_;  // by stream
  std::set<uint64_t> captures_;                    // whose memory is kept
  // By capture: blocks that are free when it has ended (its own), or when its graph is gone (others').
  std::unordered_map<uint64_t, std::vector<Block*>> until_end_, until_gone_;
  uint64_t last_capture_ = 0;
  size_t reserved_ = 0;
  MemoryStats stats_;
};

}  // namespace loom
