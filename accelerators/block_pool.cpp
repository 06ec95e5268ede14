#include <loom/accelerators/block_pool.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <tuple>
#include <utility>

namespace loom {

namespace {

size_t rounded(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

size_t segment_for(size_t bytes) {
  if (bytes <= BlockPool::small) return BlockPool::small_segment;
  if (bytes < BlockPool::large) return BlockPool::medium_segment;
  return rounded(bytes, BlockPool::large_step);
}

}  // namespace

bool BlockPool::BySize::operator()(const Block* a, const Block* b) const {
  const auto key = [](const Block* x) { return std::tuple(x->pool, x->stream, x->small_segment, x->bytes, x->begin); };
  return key(a) < key(b);
}

BlockPool::BlockPool(BlockSource& source, std::string name, size_t limit)
    : source_(source), name_(std::move(name)), limit_(limit) {}

BlockPool::~BlockPool() {
  captures_.clear();
  empty_cache();
}

void* BlockPool::allocate(size_t bytes, void* stream) {
  const std::lock_guard lock(mutex_);
  const size_t wanted = rounded(bytes, granule);
  const bool in_small = wanted <= small;
  const uint64_t pool = capture_at(stream);
  collect(false);
  Block* block = find(wanted, stream, pool, in_small);
  if (block != nullptr) {
    ++stats_.cache_hits;
    free_.erase(block);
    stats_.cached -= static_cast<int64_t>(block->bytes);
  } else {
    block = take_segment(wanted, stream, pool, in_small);
  }
  block->free = false;
  cut(block, wanted);
  block->asked = bytes;
  ++stats_.allocations;
  stats_.allocated += static_cast<int64_t>(block->bytes);
  stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
  return block->begin;
}

// The smallest one that is large enough.
BlockPool::Block* BlockPool::find(size_t bytes, void* stream, uint64_t pool, bool in_small) {
  Block wanted{nullptr, bytes, 0, stream, pool, in_small};
  const auto at = free_.lower_bound(&wanted);
  if (at == free_.end()) return nullptr;
  Block* const found = *at;
  const bool fits = found->pool == pool && found->stream == stream && found->small_segment == in_small;
  return fits ? found : nullptr;
}

// While a graph is captured the driver must not be asked to wait, so nothing is given back then.
BlockPool::Block* BlockPool::take_segment(size_t bytes, void* stream, uint64_t pool, bool in_small) {
  const size_t size = segment_for(bytes);
  const auto take = [&]() -> void* {
    return limit_ != 0 && reserved_ + size > limit_ ? nullptr : source_.allocate(size);
  };
  void* memory = take();
  if (memory == nullptr && capturing_.empty()) {
    collect(true);
    if (Block* const block = find(bytes, stream, pool, in_small)) {
      free_.erase(block);
      stats_.cached -= static_cast<int64_t>(block->bytes);
      return block;
    }
    give_back();
    memory = take();
  }
  if (memory == nullptr) fail_out_of_memory(bytes);
  reserved_ += size;
  source_.spoil(memory, size, stream);
  auto block = std::make_unique<Block>(Block{static_cast<char*>(memory), size, 0, stream, pool, in_small});
  return (blocks_[memory] = std::move(block)).get();
}

// What is left over becomes a block of its own, unless it would be of no use.
void BlockPool::cut(Block* block, size_t bytes) {
  const size_t rest = block->bytes - bytes;
  if (block->small_segment ? rest < granule : rest <= small) return;
  auto second =
      std::make_unique<Block>(Block{block->begin + bytes, rest, 0, block->stream, block->pool, block->small_segment});
  second->before = block;
  second->after = block->after;
  if (second->after != nullptr) second->after->before = second.get();
  block->after = second.get();
  block->bytes = bytes;
  Block* const left = second.get();
  blocks_[left->begin] = std::move(second);
  make_free(left);
}

void BlockPool::make_free(Block* block) {
  block->free = true;
  block->asked = 0;
  if (block->after != nullptr && block->after->free) {
    free_.erase(block->after);
    stats_.cached -= static_cast<int64_t>(block->after->bytes);
    block = merge(block);
  }
  if (block->before != nullptr && block->before->free) {
    free_.erase(block->before);
    stats_.cached -= static_cast<int64_t>(block->before->bytes);
    block = merge(block->before);
  }
  free_.insert(block);
  stats_.cached += static_cast<int64_t>(block->bytes);
}

// A block and the one after it become one.
BlockPool::Block* BlockPool::merge(Block* first) {
  const Block* const second = first->after;
  first->bytes += second->bytes;
  first->after = second->after;
  if (first->after != nullptr) first->after->before = first;
  blocks_.erase(second->begin);
  return first;
}

// An exception here (no memory for a list, a driver that has failed) ends the program: the block would be lost.
void BlockPool::release(void* memory) noexcept {
  const std::lock_guard lock(mutex_);
  const auto at = blocks_.find(memory);
  if (at == blocks_.end()) return;
  Block* const block = at->second.get();
  stats_.allocated -= static_cast<int64_t>(block->bytes);
  block->asked = 0;
  if (!capturing_.empty() && keep_for_capture(block)) return;
  if (block->users.empty()) {
    source_.spoil(block->begin, block->bytes, block->stream);
    return make_free(block);
  }
  Waiting waiting{block, {}};
  for (void* const stream : std::exchange(block->users, {})) waiting.events.push_back(source_.record(stream));
  waiting_.push_back(std::move(waiting));
}

void BlockPool::use_by(void* address, void* stream) {
  const std::lock_guard lock(mutex_);
  const auto after = blocks_.upper_bound(address);
  if (after == blocks_.begin()) return;
  Block& block = *std::prev(after)->second;
  if (block.free || static_cast<char*>(address) >= block.begin + block.bytes) return;
  if (stream != block.stream && std::ranges::find(block.users, stream) == block.users.end())
    block.users.push_back(stream);
}

uint64_t BlockPool::capture_at(void* stream) const {
  if (capturing_.empty()) return 0;
  if (const auto found = capturing_.find(stream); found != capturing_.end()) return found->second;
  const uint64_t joined = source_.capture_of(stream);
  if (joined == 0) return 0;
  for (const auto& [origin, pool] : capturing_)
    if (source_.capture_of(origin) == joined) return pool;
  return 0;
}

// Whether the block stays: work that is being captured may use it. Events of such work are never seen to happen.
bool BlockPool::keep_for_capture(Block* block) {
  uint64_t capture = capture_at(block->stream);
  for (void* const user : block->users)
    if (capture == 0) capture = capture_at(user);
  if (capture == 0) return false;
  if (block->pool == capture && block->users.empty()) return false;
  (block->pool == capture ? until_end_ : until_gone_)[capture].push_back(block);
  block->users.clear();
  return true;
}

void BlockPool::collect(bool wait) {
  std::erase_if(waiting_, [&](Waiting& w) {
    std::erase_if(w.events, [&](BlockSource::Event e) {
      if (wait)
        source_.wait(e);
      else if (!source_.is_done(e))
        return false;
      source_.drop(e);
      return true;
    });
    if (!w.events.empty()) return false;
    source_.spoil(w.block->begin, w.block->bytes, w.block->stream);
    make_free(w.block);
    return true;
  });
}

void BlockPool::give_back() {
  for (auto at = free_.begin(); at != free_.end();) {
    Block* const block = *at;
    const bool whole = block->before == nullptr && block->after == nullptr;
    if (!whole || captures_.contains(block->pool)) {
      ++at;
      continue;
    }
    at = free_.erase(at);
    stats_.cached -= static_cast<int64_t>(block->bytes);
    reserved_ -= block->bytes;
    source_.release(block->begin);
    blocks_.erase(block->begin);
  }
}

void BlockPool::empty_cache() {
  const std::lock_guard lock(mutex_);
  if (!capturing_.empty()) return;
  collect(true);
  give_back();
}

uint64_t BlockPool::begin_capture(void* stream, uint64_t pool) {
  const std::lock_guard lock(mutex_);
  check(!capturing_.contains(stream), "memory of ", name_, ": this stream is being captured already");
  check(pool == 0 || captures_.contains(pool), "memory of ", name_, ": no capture has the number ", pool);
  const uint64_t number = pool != 0 ? pool : ++last_capture_;
  captures_.insert(number);
  capturing_[stream] = number;
  return number;
}

void BlockPool::end_capture(void* stream) {
  const std::lock_guard lock(mutex_);
  const auto found = capturing_.find(stream);
  if (found == capturing_.end()) return;
  const uint64_t pool = found->second;
  capturing_.erase(found);
  free_kept(until_end_, pool);
}

// Their streams have come together again by now.
void BlockPool::free_kept(std::unordered_map<uint64_t, std::vector<Block*>>& kept, uint64_t pool) {
  const auto found = kept.find(pool);
  if (found == kept.end()) return;
  for (Block* const block : found->second) {
    source_.spoil(block->begin, block->bytes, block->stream);
    make_free(block);
  }
  kept.erase(found);
}

void BlockPool::forget_capture(uint64_t pool) {
  const std::lock_guard lock(mutex_);
  captures_.erase(pool);
  free_kept(until_gone_, pool);
}

MemoryStats BlockPool::stats() const {
  const std::lock_guard lock(mutex_);
  MemoryStats out = stats_;
  out.cache_limit = static_cast<int64_t>(limit_);
  return out;
}

void BlockPool::reset_peak() {
  const std::lock_guard lock(mutex_);
  stats_.peak_allocated = stats_.allocated;
}

std::vector<std::pair<void*, size_t>> BlockPool::in_use() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<void*, size_t>> out;
  for (const auto& [address, block] : blocks_)
    if (!block->free && block->asked > 0) out.emplace_back(address, block->asked);
  return out;
}

void BlockPool::fail_out_of_memory(size_t bytes) const {
  throw OutOfMemory(str("out of memory on ", name_, ": requested ", bytes, " bytes, in use ", stats_.allocated,
                        ", cached ", stats_.cached, limit_ == 0 ? std::string() : str(", limit ", limit_)));
}

}  // namespace loom
