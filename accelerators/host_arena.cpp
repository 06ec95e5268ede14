#include <sanitizer/asan_interface.h>  // its macros are empty in other builds
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include <loom/accelerators/host_arena.h>

namespace loom {

namespace {

constexpr size_t huge_page = size_t{2} << 20, range_bytes = size_t{1} << 30;

size_t page() {
  static const auto bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t rounded(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }
char* rounded(char* at, size_t step) { return at + (step - reinterpret_cast<size_t>(at) % step) % step; }

char* begin_of(HostBlock* block) { return reinterpret_cast<char*>(block); }
char* end_of(HostBlock* block) { return block->memory() + block->bytes; }

HostBlock* make_block(char* begin, const char* end) {
  ASAN_UNPOISON_MEMORY_REGION(begin, HostBlock::header);
  auto* const block = new (begin) HostBlock;
  block->bytes = static_cast<size_t>(end - begin) - HostBlock::header;
  block->large = true;
  return block;
}

}  // namespace

HostArena::~HostArena() {
  for (const Range& range : ranges_) {
    ASAN_UNPOISON_MEMORY_REGION(range.begin, range.top - range.begin);
    munmap(range.begin, static_cast<size_t>(range.end - range.begin));
  }
}

// Sizes of a list differ by less than a sixteenth.
int HostArena::list_of(size_t bytes) {
  const int exponent = std::bit_width(bytes) - 1;
  const auto step = static_cast<int>((bytes >> (exponent - steps_log2)) % (size_t{1} << steps_log2));
  return (exponent << steps_log2) + step;
}

size_t HostArena::needed(size_t bytes) { return rounded(bytes + HostBlock::header, page()); }

HostBlock* HostArena::take(size_t bytes) {
  if (bytes > most) return nullptr;
  bytes = needed(bytes) - HostBlock::header;
  int list = list_of(bytes);
  HostBlock* found = smallest(list, bytes);
  for (size_t word = static_cast<size_t>(++list) / 64; found == nullptr && word < filled_.size(); ++word) {
    uint64_t filled = filled_[word];
    if (word == static_cast<size_t>(list) / 64) filled &= ~uint64_t{0} << (list % 64);
    if (filled != 0) found = smallest(static_cast<int>(word) * 64 + std::countr_zero(filled), bytes);
  }
  return found == nullptr ? nullptr : taken(found, bytes);
}

// One of exactly as many bytes was used last and is near the caches.
HostBlock* HostArena::smallest(int list, size_t bytes) const {
  HostBlock* best = nullptr;
  for (HostBlock* block = free_[static_cast<size_t>(list)]; block != nullptr; block = block->next) {
    if (block->bytes == bytes) return block;
    if (block->bytes > bytes && (best == nullptr || block->bytes < best->bytes)) best = block;
  }
  return best;
}

// What is left over becomes a block of its own.
HostBlock* HostArena::taken(HostBlock* block, size_t bytes) {
  remove(block);
  const size_t touched = block->touched, resident = block->resident;
  if (block->bytes > bytes) {
    HostBlock* const rest = make_block(block->memory() + bytes, end_of(block));
    ASAN_POISON_MEMORY_REGION(rest->memory(), rest->bytes);
    rest->before = block;
    rest->after = std::exchange(block->after, rest);
    (rest->after == nullptr ? range_of(block).last : rest->after->before) = rest;
    block->bytes = bytes;
    rest->touched = touched > bytes + HostBlock::header ? touched - bytes - HostBlock::header : 0;
    rest->resident = std::min(resident, rest->touched);
    insert(rest);
  }
  block->touched = std::min(touched, bytes);
  block->resident = std::min(resident, bytes);
  ASAN_UNPOISON_MEMORY_REGION(block->memory(), bytes);
  return block;
}

HostBlock* HostArena::extend(size_t bytes) {
  if (bytes > most) return nullptr;
  bytes = needed(bytes) - HostBlock::header;
  for (size_t i = ranges_.size(); i-- > 0;)
    if (HostBlock* const block = grow(ranges_[i], bytes)) return taken(block, bytes);
  if (!reserve(bytes + HostBlock::header)) return nullptr;
  HostBlock* const block = grow(ranges_.back(), bytes);
  if (block != nullptr) return taken(block, bytes);
  shrink(ranges_.back());
  ranges_.pop_back();
  return nullptr;
}

// The range's last block, free and of at least as many bytes; null where there is no room or the system refuses.
HostBlock* HostArena::grow(Range& range, size_t bytes) {
  const bool goes_on = range.last != nullptr && range.last->free;
  if (goes_on && range.last->bytes >= bytes) return range.last;
  const size_t more = bytes + HostBlock::header - (goes_on ? range.last->bytes + HostBlock::header : 0);
  if (more > static_cast<size_t>(range.end - range.top)) return nullptr;
  char* const top = std::min(rounded(range.top + more, huge_page), range.end);
  if (mprotect(range.top, static_cast<size_t>(top - range.top), PROT_READ | PROT_WRITE) != 0) return nullptr;
  HostBlock* const block = make_block(std::exchange(range.top, top), top);
  ASAN_POISON_MEMORY_REGION(block->memory(), block->bytes);
  block->before = std::exchange(range.last, block);
  if (block->before != nullptr) block->before->after = block;
  insert(block);
  return goes_on ? join(block->before) : block;
}

// A range of a GiB or of one block; less where the process may not have so many addresses.
bool HostArena::reserve(size_t bytes) {
  ranges_.reserve(ranges_.size() + 1);
  for (size_t size = rounded(std::max(bytes, range_bytes), huge_page);;) {
    const size_t length = size + huge_page;
    void* const mapped = mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped != MAP_FAILED) {
      char* const from = static_cast<char*>(mapped);
      char* const begin = rounded(from, huge_page);
      char* const end = begin + size;
      if (begin > from) munmap(from, static_cast<size_t>(begin - from));
      if (end < from + length) munmap(end, static_cast<size_t>(from + length - end));
      madvise(begin, size, MADV_HUGEPAGE);  // a wish: whether it is heard is the system's setting
      ranges_.push_back({begin, begin, end, nullptr});
      return true;
    }
    if (size <= rounded(bytes, huge_page)) return false;
    size = std::max(size / 2, rounded(bytes, huge_page));
  }
}

HostArena::Range& HostArena::range_of(const HostBlock* block) {
  const auto* const at = reinterpret_cast<const char*>(block);
  return *std::ranges::find_if(ranges_, [&](const Range& range) { return at >= range.begin && at < range.end; });
}

void HostArena::insert(HostBlock* block) {
  const int list = block->list = list_of(block->bytes);
  HostBlock*& head = free_[static_cast<size_t>(list)];
  block->free = true;
  block->previous = nullptr;
  block->next = head;
  if (head != nullptr) head->previous = block;
  head = block;
  filled_[static_cast<size_t>(list) / 64] |= uint64_t{1} << (list % 64);
  resident_ += block->resident;
}

void HostArena::remove(HostBlock* block) {
  const auto list = static_cast<size_t>(block->list);
  (block->previous == nullptr ? free_[list] : block->previous->next) = block->next;
  if (block->next != nullptr) block->next->previous = block->previous;
  if (free_[list] == nullptr) filled_[list / 64] &= ~(uint64_t{1} << (list % 64));
  block->free = false;
  resident_ -= block->resident;
}

// A free block and the free one after it become one.
HostBlock* HostArena::join(HostBlock* first) {
  HostBlock* const second = first->after;
  remove(first);
  remove(second);
  if (second->touched > 0) {
    first->touched = first->bytes + HostBlock::header + second->touched;
    first->resident += HostBlock::header + second->resident;
  }
  first->bytes += HostBlock::header + second->bytes;
  first->after = second->after;
  (first->after == nullptr ? range_of(first).last : first->after->before) = first;
  ASAN_POISON_MEMORY_REGION(begin_of(second), HostBlock::header);
  insert(first);
  return first;
}

void HostArena::give(HostBlock* block) noexcept {
  ASAN_POISON_MEMORY_REGION(block->memory(), block->bytes);
  block->touched = block->resident = block->bytes;
  insert(block);
  if (block->after != nullptr && block->after->free) block = join(block);
  if (block->before != nullptr && block->before->free) join(block->before);
}

void HostArena::trim() noexcept {
  for (Range& range : ranges_) shrink(range);
  std::erase_if(ranges_, [](const Range& range) { return range.begin == range.end; });
  for (HostBlock* block : free_)
    for (; block != nullptr; block = block->next) {
      char* const from = begin_of(block) + page();  // the header stays
      if (block->touched > 0 && from < end_of(block))
        madvise(from, static_cast<size_t>(end_of(block) - from), MADV_DONTNEED);
      resident_ -= std::exchange(block->resident, 0);
      block->touched = 0;
    }
}

// A mapping anew of what lies from there on, as the system would go on counting the old one's pages as promised. Where
// it refuses, as of more mappings than a process may have, the range ends there.
void HostArena::renew(Range& range, char* from) noexcept {
  const auto length = static_cast<size_t>(range.top - from);
  if (mmap(from, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == from) {
    madvise(from, length, MADV_HUGEPAGE);
  } else {
    munmap(from, static_cast<size_t>(range.end - from));
    range.end = from;
  }
}

// What is free at the top is reserved only; a range of which nothing is left goes, and is empty then.
void HostArena::shrink(Range& range) noexcept {
  if (HostBlock* const last = range.last; last != nullptr && last->free) {
    remove(last);
    range.last = last->before;
    if (range.last != nullptr) range.last->after = nullptr;
    char* const from = begin_of(last);
    ASAN_UNPOISON_MEMORY_REGION(from, range.top - from);
    if (range.last != nullptr) renew(range, from);
    range.top = from;
  }
  if (range.last != nullptr) return;
  munmap(range.begin, static_cast<size_t>(range.end - range.begin));
  range.end = range.top = range.begin;
}

}  // namespace loom
