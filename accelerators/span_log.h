// What a recording keeps of a thread: its spans, written by the thread without locks and read by who ends the
// recording. Bounded: what comes when the recording's room is used up is counted, not kept.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include <loom/accelerators/profile.h>

namespace loom::profile {

// A span of time, or a sample of numbers, on a track: the thread's own, or one of that name of the rank. Times are of
// the steady clock, in nanoseconds.
struct Span {
  enum Kind : uint8_t { work, counter };
  const std::string* name = nullptr;
  const std::string* track = nullptr;  // null: the thread's
  std::string args;
  int64_t begin = 0, end = 0;
  uint64_t flow = 0;  // not 0: what a device does for a host's span has the same number
  int rank = -1;      // of a track with a name; -1: the process's
  Kind kind = work;
  Activity activity = Activity::user;
};

// How many spans may still be kept; handed out to threads in blocks.
class Room {
 public:
  explicit Room(int64_t spans) : left_(spans) {}
  int64_t take(int64_t wanted);

 private:
  std::atomic<int64_t> left_;
};

class SpanLog {
 public:
  SpanLog(std::shared_ptr<Room> room, int64_t thread) : room_(std::move(room)), thread_(thread) {}
  ~SpanLog();
  SpanLog(const SpanLog&) = delete;
  SpanLog& operator=(const SpanLog&) = delete;

  // By the thread alone. name and track become the span's; an empty track: the thread's own.
  void add(std::string_view name, std::string_view track, Span span);

  // By anybody, at any time: what has been added until now.
  template <class F>
  void visit(const F& f) const {
    for (const Block* b = first_.load(std::memory_order_acquire); b; b = b->next.load(std::memory_order_acquire)) {
      const size_t count = b->size.load(std::memory_order_acquire);
      for (size_t i = 0; i < count; ++i) f(b->spans[i]);
    }
  }
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }
  int64_t thread() const { return thread_; }  // the system's number

 private:
  static constexpr int64_t block_spans = 256;
  struct Block {
    int64_t allowed = 0;
    std::atomic<size_t> size = 0;
    std::atomic<Block*> next = nullptr;
    std::array<Span, block_spans> spans;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  bool have_room();
  const std::string* intern(std::string_view text);  // stays where it is as long as the log

  const std::shared_ptr<Room> room_;
  const int64_t thread_;
  std::atomic<Block*> first_ = nullptr;
  Block* last_ = nullptr;
  std::atomic<uint64_t> dropped_ = 0;
  std::unordered_set<std::string, Hash, std::equal_to<>> texts_;
};

}  // namespace loom::profile
