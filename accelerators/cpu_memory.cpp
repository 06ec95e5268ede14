// Caching allocator. Small blocks come from malloc, each of its size class; large ones are cut from an arena.
#include <sanitizer/asan_interface.h>  // its macros are empty in other builds
#include <sys/single_threaded.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <string_view>
#include <utility>

#include <loom/accelerators/cores.h>
#include <loom/accelerators/cpu_memory.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/host_arena.h>
#include <loom/accelerators/host_memory.h>
#include <loom/accelerators/machine.h>

namespace loom {

namespace {

constexpr size_t granule = 64;

// Size classes: powers of two with 4 steps between.
struct SizeClass {
  int index;
  size_t bytes;
};

SizeClass size_class(size_t bytes) {
  constexpr int steps_log2 = 2;
  const size_t wanted = (bytes + granule - 1) & ~(granule - 1);
  int exponent = std::bit_width(wanted) - 1;
  const int shift = exponent - steps_log2;
  size_t step = (wanted - (size_t{1} << exponent) + (size_t{1} << shift) - 1) >> shift;
  const size_t rounded = (size_t{1} << exponent) + (step << shift);
  if (rounded == size_t{2} << exponent) {
    ++exponent;
    step = 0;
  }
  return {(exponent << steps_log2) + static_cast<int>(step), rounded};
}

HostBlock* from_system(const SizeClass& c) {
  void* const start = std::aligned_alloc(granule, c.bytes + HostBlock::header);
  if (start == nullptr) return nullptr;
  auto* const block = new (start) HostBlock;
  block->bytes = c.bytes;
  block->list = c.index;
  return block;
}

void to_system(HostBlock* block) noexcept {
  ASAN_UNPOISON_MEMORY_REGION(block->memory(), block->bytes);
  std::free(block);
}

size_t cache_limit() {
  const char* const text = std::getenv("LOOM_CACHE_LIMIT");
  if (text == nullptr) return static_cast<size_t>(usable_memory() / 4 / local_ranks());
  const std::string_view view(text);
  size_t bytes = 0;
  const auto [end, status] = std::from_chars(view.data(), view.data() + view.size(), bytes);
  check(status == std::errc() && end == view.data() + view.size(),
        "LOOM_CACHE_LIMIT: expected a number of bytes, got '", view, "'");
  return bytes;
}

// Holds a mutex, unless this is the only thread: only the holder could start another, and it starts none.
class Lock {
 public:
  explicit Lock(std::mutex& mutex) : mutex_(__libc_single_threaded ? nullptr : &mutex) {
    if (mutex_ != nullptr) mutex_->lock();
  }
  Lock(const Lock&) = delete;
  ~Lock() { unlock(); }
  void unlock() {
    if (mutex_ != nullptr) std::exchange(mutex_, nullptr)->unlock();
  }

 private:
  std::mutex* mutex_;
};

class Cache {
 public:
  void* allocate(size_t bytes) {
    HostBlock* const block = bytes < HostArena::least ? small(bytes) : large(bytes);
    if (block == nullptr) fail_out_of_memory(bytes);
    ASAN_UNPOISON_MEMORY_REGION(block->memory(), block->bytes);
    if (poison_) std::memset(block->memory(), 0xff, block->bytes);
    ASAN_POISON_MEMORY_REGION(block->memory() + bytes, block->bytes - bytes);
    return block->memory();
  }

  void release(void* memory) noexcept {
    HostBlock* const block = HostBlock::of(memory);
    const auto size = static_cast<int64_t>(block->bytes);
    HostBlock* dropped = nullptr;
    {
      const Lock lock(mutex_);
      stats_.allocated -= size;
      const bool fits = size <= limit_;
      // Full: what lies here has not been asked for lately, or it would be in use.
      constexpr int64_t headers = 2 * HostBlock::header;  // of neighbours that it may be joined with
      if (fits && cached() + size + headers > limit_) {
        dropped = take_all();
        arena_.trim();
      }
      if (block->large) {
        arena_.give(block);
        if (!fits) arena_.trim();
      } else {
        ASAN_POISON_MEMORY_REGION(memory, block->bytes);
        if (fits) {
          keep(block);
        } else {
          block->next = nullptr;
          dropped = block;
        }
      }
    }
    drop(dropped);
  }

  MemoryStats stats() const {
    const Lock lock(mutex_);
    MemoryStats out = stats_;
    out.cached = cached();
    out.cache_limit = limit_;
    return out;
  }

  void reset_peak() {
    const Lock lock(mutex_);
    stats_.peak_allocated = stats_.allocated;
  }

  void empty() {
    Lock lock(mutex_);
    HostBlock* const all = take_all();
    arena_.trim();
    lock.unlock();
    drop(all);
  }

 private:
  HostBlock* small(size_t bytes) {
    const SizeClass c = size_class(bytes);
    if (HostBlock* const block = kept(c)) return block;
    HostBlock* block = from_system(c);
    if (block == nullptr) {
      empty();
      block = from_system(c);
    }
    if (block != nullptr) {
      const Lock lock(mutex_);
      count(*block, false);
    }
    return block;
  }

  HostBlock* large(size_t bytes) {
    if (bytes > HostArena::most) return nullptr;
    for (const bool again : {false, true}) {
      if (again) empty();
      const Lock lock(mutex_);
      HostBlock* block = arena_.take(bytes);
      if (block == nullptr) block = arena_.extend(bytes);
      if (block == nullptr) continue;
      count(*block, block->resident == block->bytes);
      return block;
    }
    return nullptr;
  }

  HostBlock* kept(const SizeClass& c) {
    const Lock lock(mutex_);
    HostBlock*& head = free_[static_cast<size_t>(c.index)];
    HostBlock* const block = head;
    if (block == nullptr) return nullptr;
    head = block->next;
    small_cached_ -= static_cast<int64_t>(block->bytes);
    count(*block, true);
    return block;
  }

  void keep(HostBlock* block) {
    HostBlock*& head = free_[static_cast<size_t>(block->list)];
    block->next = head;
    head = block;
    small_cached_ += static_cast<int64_t>(block->bytes);
  }

  void count(const HostBlock& block, bool hit) {
    ++stats_.allocations;
    stats_.allocated += static_cast<int64_t>(block.bytes);
    stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
    if (hit) ++stats_.cache_hits;
  }

  int64_t cached() const { return small_cached_ + static_cast<int64_t>(arena_.resident()); }

  // All small blocks as one list.
  HostBlock* take_all() noexcept {
    HostBlock* all = nullptr;
    for (HostBlock*& head : free_)
      while (head != nullptr) {
        HostBlock* const block = head;
        head = block->next;
        block->next = all;
        all = block;
      }
    small_cached_ = 0;
    return all;
  }

  static void drop(HostBlock* list) noexcept {
    while (list != nullptr) {
      HostBlock* const block = list;
      list = block->next;
      to_system(block);
    }
  }

  [[noreturn]] void fail_out_of_memory(size_t bytes) const {
    const MemoryStats now = stats();
    throw OutOfMemory(str("out of memory on cpu: requested ", bytes, " bytes, in use ", now.allocated, ", cached ",
                          now.cached, ", limit none"));
  }

  const int64_t limit_ = static_cast<int64_t>(std::min(cache_limit(), HostArena::most));
  const bool poison_ = std::getenv("LOOM_POISON") != nullptr && std::string_view(std::getenv("LOOM_POISON")) == "1";
  mutable std::mutex mutex_;
  std::array<HostBlock*, 20 << 2> free_{};  // small ones, by size class
  int64_t small_cached_ = 0;
  HostArena arena_;
  MemoryStats stats_;
};

// Never destroyed: see cpu/cpu.cpp.
Cache& cache() {
  static Cache* const instance = new Cache;
  return *instance;
}

}  // namespace

void* host_memory::take(size_t bytes) { return bytes == 0 ? nullptr : cache().allocate(bytes); }
void host_memory::give(void* block) noexcept {
  if (block != nullptr) cache().release(block);
}

void* CpuMemory::allocate(size_t bytes) { return host_memory::take(bytes); }
void CpuMemory::release(void* block) noexcept { host_memory::give(block); }
MemoryStats CpuMemory::memory_stats() const { return cache().stats(); }
void CpuMemory::reset_peak_memory_stats() { cache().reset_peak(); }
void CpuMemory::empty_cache() { cache().empty(); }

DeviceProperties CpuMemory::properties() const {
  DeviceProperties out;
  out.name = processor_name();
  out.memory = usable_memory();
  out.multiprocessors = available_cores();
  return out;
}

}  // namespace loom
