// Caching allocator. A block is a header and, behind it, memory of its size class. Small blocks come from malloc; large
// ones are mapped on 2 MiB boundaries for huge pages, their header in the page before.
#include <sanitizer/asan_interface.h>  // its macros are empty in other builds
#include <sys/mman.h>
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
#include <loom/accelerators/host_memory.h>
#include <loom/accelerators/machine.h>

namespace loom {

namespace {

constexpr size_t page = 4096, huge_page = size_t{2} << 20, header_space = 64;
constexpr size_t granule = 64, largest = size_t{1} << 46;

// Size classes: powers of two with 4 steps between; 16 from 1 MiB on, where waste is dear and sizes recur exactly.
int steps_log2(int exponent) { return exponent >= 20 ? 4 : 2; }

struct SizeClass {
  int index;
  size_t bytes;
};

SizeClass size_class(size_t bytes) {
  const size_t wanted = (bytes + granule - 1) & ~(granule - 1);
  int exponent = std::bit_width(wanted) - 1;
  const int shift = exponent - steps_log2(exponent);
  size_t step = (wanted - (size_t{1} << exponent) + (size_t{1} << shift) - 1) >> shift;
  const size_t rounded = (size_t{1} << exponent) + (step << shift);
  if (rounded == size_t{2} << exponent) {
    ++exponent;
    step = 0;
  }
  return {(exponent << 4) + static_cast<int>(step), rounded};
}

struct Block {
  Block* next;
  size_t bytes;
  int index;

  char* memory() { return reinterpret_cast<char*>(this) + header_space; }
  static Block* of(void* memory) { return reinterpret_cast<Block*>(static_cast<char*>(memory) - header_space); }
};
static_assert(sizeof(Block) <= header_space);

// Maps bytes on a 2 MiB boundary with one page before; null when the system refuses.
char* map_aligned(size_t bytes) {
  const size_t length = bytes + huge_page + page;
  void* const mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  const size_t past = reinterpret_cast<size_t>(begin + page) % huge_page;
  char* const memory = begin + page + (past == 0 ? 0 : huge_page - past);
  char* const end = memory + ((bytes + page - 1) & ~(page - 1));
  if (memory - page > begin) munmap(begin, static_cast<size_t>(memory - page - begin));
  if (end < begin + length) munmap(end, static_cast<size_t>(begin + length - end));
  madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

Block* from_system(const SizeClass& c) {
  char* memory = nullptr;
  if (c.bytes >= huge_page) {
    memory = map_aligned(c.bytes);
  } else if (void* const start = std::aligned_alloc(granule, c.bytes + header_space)) {
    memory = static_cast<char*>(start) + header_space;
  }
  return memory == nullptr ? nullptr : new (memory - header_space) Block{nullptr, c.bytes, c.index};
}

void to_system(Block* block) noexcept {
  ASAN_UNPOISON_MEMORY_REGION(block->memory(), block->bytes);
  if (block->bytes >= huge_page) {
    munmap(block->memory() - page, ((block->bytes + page - 1) & ~(page - 1)) + page);
  } else {
    std::free(block);
  }
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
    if (bytes > largest) fail_out_of_memory(bytes);
    const SizeClass c = size_class(bytes);
    Block* block = take(c);
    if (block == nullptr) {
      block = from_system(c);
      if (block == nullptr) {
        empty();
        block = from_system(c);
      }
      if (block == nullptr) fail_out_of_memory(bytes);
      count(c, false);
    }
    ASAN_UNPOISON_MEMORY_REGION(block->memory(), block->bytes);
    if (poison_) std::memset(block->memory(), 0xff, block->bytes);
    ASAN_POISON_MEMORY_REGION(block->memory() + bytes, block->bytes - bytes);
    return block->memory();
  }

  void release(void* memory) noexcept {
    Block* const block = Block::of(memory);
    ASAN_POISON_MEMORY_REGION(memory, block->bytes);
    const auto size = static_cast<int64_t>(block->bytes);
    Block* dropped = nullptr;
    {
      const Lock lock(mutex_);
      stats_.allocated -= size;
      // Full: what lies here has not been asked for lately, or it would be in use.
      if (stats_.cached + size > limit_) dropped = take_all();
      if (size <= limit_) {
        block->next = free_[static_cast<size_t>(block->index)];
        free_[static_cast<size_t>(block->index)] = block;
        stats_.cached += size;
      } else {
        block->next = dropped;
        dropped = block;
      }
    }
    drop(dropped);
  }

  MemoryStats stats() const {
    const Lock lock(mutex_);
    MemoryStats out = stats_;
    out.cache_limit = limit_;
    return out;
  }

  void reset_peak() {
    const Lock lock(mutex_);
    stats_.peak_allocated = stats_.allocated;
  }

  void empty() {
    Lock lock(mutex_);
    Block* const all = take_all();
    lock.unlock();
    drop(all);
  }

 private:
  Block* take(const SizeClass& c) {
    const Lock lock(mutex_);
    Block*& head = free_[static_cast<size_t>(c.index)];
    Block* const block = head;
    if (block == nullptr) return nullptr;
    head = block->next;
    count_locked(c, true);
    return block;
  }

  void count(const SizeClass& c, bool hit) {
    const Lock lock(mutex_);
    count_locked(c, hit);
  }

  void count_locked(const SizeClass& c, bool hit) {
    const auto size = static_cast<int64_t>(c.bytes);
    ++stats_.allocations;
    stats_.allocated += size;
    stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
    if (hit) {
      ++stats_.cache_hits;
      stats_.cached -= size;
    }
  }

  // All cached blocks as one list.
  Block* take_all() noexcept {
    Block* all = nullptr;
    for (Block*& head : free_)
      while (head != nullptr) {
        Block* const block = head;
        head = block->next;
        block->next = all;
        all = block;
      }
    stats_.cached = 0;
    return all;
  }

  static void drop(Block* list) noexcept {
    while (list != nullptr) {
      Block* const block = list;
      list = block->next;
      to_system(block);
    }
  }

  [[noreturn]] void fail_out_of_memory(size_t bytes) const {
    const MemoryStats now = stats();
    throw OutOfMemory(str("out of memory on cpu: requested ", bytes, " bytes, in use ", now.allocated, ", cached ",
                          now.cached, ", limit none"));
  }

  const int64_t limit_ = static_cast<int64_t>(std::min(cache_limit(), largest));
  const bool poison_ = std::getenv("LOOM_POISON") != nullptr && std::string_view(std::getenv("LOOM_POISON")) == "1";
  mutable std::mutex mutex_;
  std::array<Block*, 48 << 4> free_{};
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
