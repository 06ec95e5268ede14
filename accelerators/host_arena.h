// Large blocks of the host's memory, cut from ranges of addresses: what a freed one leaves serves any later size, so
// that weights, gradients and activations of a training step take turns in the same memory. Freed neighbours become one
// block (boundary tags, Knuth 1973, 2.5), and free blocks stand in lists by size (segregated fits, Masmano et al.
// 2004).
//
// A range is reserved without memory behind it and grows by what is asked for; its pages are huge ones where the system
// has them. Not for several threads at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace loom {

// What stands before the memory that is handed out.
struct HostBlock {
  static constexpr size_t header = 64;

  size_t bytes = 0;           // of the memory
  int list = 0;               // of free blocks, by size
  bool large = false;         // cut from an arena
  bool free = false;          // large: in a list
  HostBlock* next = nullptr;  // in the list
  HostBlock* previous = nullptr;
  HostBlock* before = nullptr;  // large: the neighbours in the range
  HostBlock* after = nullptr;
  // Free: the system has given pages for at most `resident` of its bytes, none of them behind the first `touched`; but
  // the header's page, and what comes with a huge page.
  size_t touched = 0;
  size_t resident = 0;

  char* memory() { return reinterpret_cast<char*>(this) + header; }
  static HostBlock* of(void* memory) { return reinterpret_cast<HostBlock*>(static_cast<char*>(memory) - header); }
};
static_assert(sizeof(HostBlock) <= HostBlock::header);

class HostArena {
 public:
  static constexpr size_t least = size_t{256} << 10;  // bytes of a block that is worth it
  static constexpr size_t most = size_t{1} << 46;     // more than any machine has

  HostArena() = default;
  ~HostArena();
  HostArena(const HostArena&) = delete;
  HostArena& operator=(const HostArena&) = delete;

  // A block of at least that many bytes; null where none that is free fits.
  HostBlock* take(size_t bytes);
  // The same of new memory; null where the system refuses.
  HostBlock* extend(size_t bytes);
  void give(HostBlock* block) noexcept;
  // Free pages go back to the system.
  void trim() noexcept;

  size_t resident() const { return resident_; }  // bytes of free blocks that the system has given pages for, at most

 private:
  static constexpr int steps_log2 = 4, lists = 48 << steps_log2;  // 16 lists from a power of two to the next

  struct Range {
    char* begin;
    char* top;  // up to here it has been asked for
    char* end;
    HostBlock* last;
  };

  static int list_of(size_t bytes);
  static size_t needed(size_t bytes);  // with the header, in whole pages
  HostBlock* smallest(int list, size_t bytes) const;
  HostBlock* taken(HostBlock* block, size_t bytes);
  HostBlock* grow(Range& range, size_t bytes);
  bool reserve(size_t bytes);
  Range& range_of(const HostBlock* block);
  void insert(HostBlock* block);
  void remove(HostBlock* block);
  HostBlock* join(HostBlock* first);
  void renew(Range& range, char* from) noexcept;
  void shrink(Range& range) noexcept;

  std::array<HostBlock*, lists> free_{};
  std::array<uint64_t, lists / 64> filled_{};  // which lists are not empty
  std::vector<Range> ranges_;
  size_t resident_ = 0;
};

}  // namespace loom
