#include <loom/accelerators/span_log.h>

#include <algorithm>
#include <utility>

namespace loom::profile {

int64_t Room::take(int64_t wanted) {
  int64_t left = left_.load(std::memory_order_relaxed);
  int64_t got = 0;
  do {
    got = std::min(left, wanted);
  } while (got > 0 && !left_.compare_exchange_weak(left, left - got, std::memory_order_relaxed));
  return got;
}

SpanLog::~SpanLog() {
  for (Block* b = first_.load(std::memory_order_relaxed); b != nullptr;)
    delete std::exchange(b, b->next.load(std::memory_order_relaxed));
}

bool SpanLog::have_room() {
  if (last_ != nullptr && std::cmp_less(last_->size.load(std::memory_order_relaxed), last_->allowed)) return true;
  const int64_t allowed = room_->take(block_spans);
  if (allowed == 0) return false;
  auto block = std::make_unique<Block>();
  block->allowed = allowed;
  (last_ == nullptr ? first_ : last_->next).store(block.get(), std::memory_order_release);
  last_ = block.release();
  return true;
}

void SpanLog::add(std::string_view name, std::string_view track, Span span) {
  if (!have_room()) {
    dropped_.store(dropped_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return;
  }
  span.name = intern(name);
  if (!track.empty()) span.track = intern(track);
  const size_t at = last_->size.load(std::memory_order_relaxed);
  last_->spans[at] = std::move(span);
  last_->size.store(at + 1, std::memory_order_release);
}

const std::string* SpanLog::intern(std::string_view text) {
  const auto found = texts_.find(text);
  return found != texts_.end() ? &*found : &*texts_.emplace(text).first;
}

}  // namespace loom::profile
