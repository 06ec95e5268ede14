#include <loom/accelerators/pinned_pool.h>

#include <algorithm>
#include <bit>
#include <iterator>

namespace loom {

size_t PinnedPool::rounded(size_t bytes) {
  if (bytes <= smallest) return smallest;
  const size_t step = std::bit_floor(bytes - 1) / 4;
  return (bytes + step - 1) / step * step;
}

PinnedPool::~PinnedPool() { empty_cache(); }

void* PinnedPool::allocate(size_t bytes) {
  const std::lock_guard lock(mutex_);
  const size_t wanted = rounded(bytes);
  collect(false);
  void* block = take(wanted);
  if (block != nullptr)
    ++stats_.cache_hits;
  else
    block = from_source(wanted);
  ++stats_.allocations;
  stats_.allocated += static_cast<int64_t>(wanted);
  stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
  return block;
}

// Of exactly this size: batches recur in the sizes that they had.
void* PinnedPool::take(size_t bytes) {
  const auto at = free_.lower_bound({bytes, nullptr});
  if (at == free_.end() || at->first != bytes) return nullptr;
  char* const block = at->second;
  free_.erase(at);
  blocks_.at(block).released = false;
  stats_.cached -= static_cast<int64_t>(bytes);
  return block;
}

void* PinnedPool::from_source(size_t bytes) {
  void* memory = source_.allocate(bytes);
  if (memory == nullptr) {
    collect(true);
    if (void* const block = take(bytes)) return block;
    give_back();
    memory = source_.allocate(bytes);
  }
  if (memory == nullptr)
    throw OutOfMemory(str("out of pinned memory of the host: requested ", bytes, " bytes, in use ", stats_.allocated,
                          ", cached ", stats_.cached, ", limit none"));
  blocks_.emplace(static_cast<char*>(memory), Block{bytes});
  return memory;
}

void PinnedPool::release(void* memory) noexcept {
  const std::lock_guard lock(mutex_);
  const auto at = blocks_.find(static_cast<char*>(memory));
  if (at == blocks_.end() || at->second.released) return;
  Block& block = at->second;
  block.released = true;
  stats_.allocated -= static_cast<int64_t>(block.bytes);
  stats_.cached += static_cast<int64_t>(block.bytes);
  if (block.uses.empty())
    free_.emplace(block.bytes, at->first);
  else
    waiting_.push_back(at->first);
}

PinnedPool::Blocks::iterator PinnedPool::holding(const void* address) {
  const auto next = blocks_.upper_bound(static_cast<char*>(const_cast<void*>(address)));  // NOLINT: compared only
  if (next == blocks_.begin()) return blocks_.end();
  const auto at = std::prev(next);
  const bool inside = static_cast<const char*>(address) < at->first + at->second.bytes;
  return inside && !at->second.released ? at : blocks_.end();
}

PinnedPool::Blocks::const_iterator PinnedPool::holding(const void* address) const {
  return const_cast<PinnedPool*>(this)->holding(address);  // NOLINT: which changes nothing
}

bool PinnedPool::contains(const void* address) const {
  const std::lock_guard lock(mutex_);
  return holding(address) != blocks_.end();
}

void PinnedPool::use_until(const void* address, void* stream, BlockSource::Event event) {
  const std::lock_guard lock(mutex_);
  const auto at = holding(address);
  if (at == blocks_.end()) return source_.drop(event);
  auto& uses = at->second.uses;
  const auto earlier = std::ranges::find(uses, stream, &std::pair<void*, BlockSource::Event>::first);
  if (earlier == uses.end()) {
    uses.emplace_back(stream, event);
  } else {  // which comes before this one
    source_.drop(earlier->second);
    earlier->second = event;
  }
}

bool PinnedPool::is_over(Block& block, bool wait) {
  std::erase_if(block.uses, [&](const auto& use) {
    if (wait)
      source_.wait(use.second);
    else if (!source_.is_done(use.second))
      return false;
    source_.drop(use.second);
    return true;
  });
  return block.uses.empty();
}

void PinnedPool::collect(bool wait) {
  std::erase_if(waiting_, [&](char* address) {
    Block& block = blocks_.at(address);
    if (!is_over(block, wait)) return false;
    free_.emplace(block.bytes, address);
    return true;
  });
}

void PinnedPool::give_back() {
  for (const auto& [bytes, address] : free_) {
    stats_.cached -= static_cast<int64_t>(bytes);
    blocks_.erase(address);
    source_.release(address);
  }
  free_.clear();
}

MemoryStats PinnedPool::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void PinnedPool::empty_cache() {
  const std::lock_guard lock(mutex_);
  collect(true);
  give_back();
}

}  // namespace loom
