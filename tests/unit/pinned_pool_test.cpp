// SPDX-License-Identifier: Apache-2.0
// The pool of pinned memory over a source that only pretends to have some.
#include <doctest/doctest.h>
#include <loom/accelerators/pinned_pool.h>

#include <map>

using namespace loom;

namespace {

// Numbers in place of addresses and events: events happen when the test says so.
class Pretended final : public BlockSource {
 public:
  explicit Pretended(size_t total = size_t{1} << 40) : total_(total) {}
  void* allocate(size_t bytes) override {
    if (taken + bytes > total_) return nullptr;
    void* const address = reinterpret_cast<void*>(next_);
    next_ += 2 * bytes;
    blocks[address] = bytes;
    taken += bytes;
    return address;
  }
  void release(void* block) noexcept override {
    taken -= blocks[block];
    blocks.erase(block);
  }
  Event record(void*) override { return reinterpret_cast<Event>(++recorded); }
  bool is_done(Event event) override { return reinterpret_cast<uintptr_t>(event) <= done; }
  void wait(Event event) override { done = std::max(done, reinterpret_cast<uintptr_t>(event)); }
  void drop(Event) noexcept override { ++dropped; }

  std::map<void*, size_t> blocks;
  size_t taken = 0;
  uintptr_t recorded = 0, done = 0, dropped = 0;

 private:
  size_t total_, next_ = size_t{1} << 30;
};

void* stream(uintptr_t number) { return reinterpret_cast<void*>(number); }
char* at(void* block, int64_t offset) { return static_cast<char*>(block) + offset; }

}  // namespace

TEST_CASE("pinned memory: sizes in four steps between powers of two") {
  for (const auto& [bytes, expected] : std::vector<std::pair<size_t, size_t>>{
           {1, 512}, {512, 512}, {513, 640}, {640, 640}, {641, 768}, {1000, 1024}, {1024, 1024}, {1025, 1280}})
    CHECK(PinnedPool::rounded(bytes) == expected);
  for (size_t bytes = 1; bytes < size_t{1} << 24; bytes += bytes / 5 + 1) {
    CHECK(PinnedPool::rounded(bytes) >= bytes);
    CHECK(PinnedPool::rounded(PinnedPool::rounded(bytes)) == PinnedPool::rounded(bytes));
    if (bytes >= 512) CHECK(PinnedPool::rounded(bytes) * 4 <= bytes * 5);
  }
}

TEST_CASE("pinned memory: what was released and never copied is handed out at once") {
  Pretended source;
  PinnedPool pool(source);
  void* const a = pool.allocate(1000);
  void* const b = pool.allocate(1000);
  CHECK(a != b);
  pool.release(a);
  CHECK(pool.allocate(900) == a);
  CHECK(pool.allocate(2000) != b);
  const MemoryStats stats = pool.stats();
  CHECK(stats.allocations == 4);
  CHECK(stats.cache_hits == 1);
  CHECK(stats.allocated == 1024 + 1024 + 2048);
  CHECK(stats.peak_allocated == stats.allocated);
  CHECK(stats.cached == 0);
}

TEST_CASE("pinned memory: a block waits for the last copy of each stream") {
  Pretended source;
  PinnedPool pool(source);
  void* const a = pool.allocate(512);
  pool.use_until(a, stream(1), source.record(stream(1)));
  pool.use_until(at(a, 100), stream(2), source.record(stream(2)));
  pool.use_until(a, stream(1), source.record(stream(1)));  // the one before is of no account now
  CHECK(source.dropped == 1);
  pool.release(a);
  CHECK(pool.stats().allocated == 0);
  CHECK(pool.stats().cached == 512);
  for (const uintptr_t done : {0, 1, 2}) {
    source.done = done;
    CHECK(pool.allocate(512) != a);
  }
  source.done = 3;
  CHECK(pool.allocate(512) == a);
  CHECK(source.dropped == 3);
}

TEST_CASE("pinned memory: reuse after the copy, not before") {
  Pretended source;
  PinnedPool pool(source);
  void* const a = pool.allocate(512);
  pool.use_until(a, stream(1), source.record(stream(1)));
  pool.release(a);
  void* const b = pool.allocate(512);
  CHECK(b != a);
  source.done = 1;
  CHECK(pool.allocate(512) == a);
  CHECK(source.dropped == 1);
}

TEST_CASE("pinned memory: which addresses are in a block that is in use") {
  Pretended source;
  PinnedPool pool(source);
  void* const a = pool.allocate(600);
  CHECK(pool.contains(a));
  CHECK(pool.contains(at(a, 639)));
  CHECK_FALSE(pool.contains(at(a, 640)));
  CHECK_FALSE(pool.contains(at(a, -1)));
  pool.release(a);
  CHECK_FALSE(pool.contains(a));
  pool.use_until(a, stream(1), source.record(stream(1)));  // not a block's: nothing keeps the event
  CHECK(source.dropped == 1);
}

TEST_CASE("pinned memory: where there is no more, copies are waited for, then blocks given back, then an error") {
  Pretended source(4096);
  PinnedPool pool(source);
  void* const a = pool.allocate(2048);
  void* const b = pool.allocate(2048);
  pool.use_until(a, stream(1), source.record(stream(1)));
  pool.release(a);
  CHECK(pool.allocate(2048) == a);
  CHECK(source.done == 1);
  pool.release(b);
  CHECK(pool.allocate(1024) != nullptr);
  CHECK_FALSE(source.blocks.contains(b));
  CHECK_THROWS_WITH_AS(pool.allocate(4000),
                       "out of pinned memory of the host: requested 4096 bytes, in use 3072, cached 0, limit none",
                       OutOfMemory);
}

TEST_CASE("pinned memory: an emptied pool has given everything back but what is in use") {
  Pretended source;
  PinnedPool pool(source);
  void* const kept = pool.allocate(512);
  void* const copied = pool.allocate(1024);
  pool.use_until(copied, stream(1), source.record(stream(1)));
  pool.release(copied);
  pool.release(pool.allocate(4096));
  pool.empty_cache();
  CHECK(source.blocks.size() == 1);
  CHECK(source.blocks.contains(kept));
  CHECK(source.dropped == source.recorded);
  CHECK(pool.stats().cached == 0);
  CHECK(pool.stats().allocated == 512);
}
