// SPDX-License-Identifier: Apache-2.0
// The memory of devices whose work runs in streams, over a source that only pretends to have some.
#include <doctest/doctest.h>
#include <loom/accelerators/block_pool.h>

#include <map>
#include <random>
#include <set>
#include <vector>

using namespace loom;

namespace {

constexpr size_t mib = size_t{1} << 20;

// Addresses of no memory at all, as those of a device are to the host.
class Pretended final : public BlockSource {
 public:
  explicit Pretended(size_t total = size_t{1} << 40) : total_(total) {}
  void* allocate(size_t bytes) override {
    if (taken + bytes > total_) return nullptr;
    void* const address = reinterpret_cast<void*>(next_);
    next_ += bytes + mib;
    segments[address] = bytes;
    taken += bytes;
    ++asked;
    return address;
  }
  void release(void* segment) noexcept override {
    taken -= segments[segment];
    segments.erase(segment);
  }
  Event record(void*) override { return reinterpret_cast<Event>(++recorded); }
  bool is_done(Event event) override { return reinterpret_cast<uintptr_t>(event) <= done; }
  void wait(Event event) override { done = std::max(done, reinterpret_cast<uintptr_t>(event)); }
  void drop(Event) noexcept override { ++dropped; }

  std::map<void*, size_t> segments;
  size_t taken = 0, asked = 0;
  uint64_t capture_of(void* stream) override { return captured.contains(stream) ? 1 : 0; }
  void spoil(void* memory, size_t bytes, void*) override { spoiled.emplace_back(memory, bytes); }

  uintptr_t recorded = 0, done = 0, dropped = 0;
  std::set<void*> captured;  // streams
  std::vector<std::pair<void*, size_t>> spoiled;

 private:
  size_t total_, next_ = mib;
};

void* stream(uintptr_t number) { return reinterpret_cast<void*>(number); }
char* at(void* block, size_t offset) { return static_cast<char*>(block) + offset; }

}  // namespace

TEST_CASE("what a stream has freed it gets again; another one does not") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const a = pool.allocate(1000, stream(1));
  pool.release(a);
  CHECK(pool.allocate(900, stream(1)) == a);
  pool.release(a);
  void* const b = pool.allocate(900, stream(2));
  CHECK(b != a);
  CHECK(source.asked == 2);
  CHECK(pool.stats().allocations == 3);
  CHECK(pool.stats().cache_hits == 1);
}

TEST_CASE("segments by size, and blocks cut from them") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const first = pool.allocate(1, stream(1));
  CHECK(source.segments.at(first) == 2 * mib);
  CHECK(pool.allocate(513, stream(1)) == at(first, 512));
  CHECK(pool.allocate(mib, stream(1)) == at(first, 512 + 1024));
  CHECK(source.asked == 1);
  void* const medium = pool.allocate(mib + 1, stream(1));
  CHECK(source.segments.at(medium) == 20 * mib);
  CHECK(pool.allocate(9 * mib, stream(1)) == at(medium, mib + 512));
  void* const large = pool.allocate(11 * mib + 1, stream(1));
  CHECK(source.segments.at(large) == 12 * mib);
  const MemoryStats stats = pool.stats();
  // The rest of a large segment is too little to be a block.
  CHECK(stats.allocated == static_cast<int64_t>(512 + 1024 + mib + (mib + 512) + 9 * mib + 12 * mib));
  CHECK(stats.allocated + stats.cached == static_cast<int64_t>(source.taken));
}

TEST_CASE("neighbours that are free become one, in whatever order") {
  const std::vector<std::vector<size_t>> orders{{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}};
  for (const auto& order : orders) {
    Pretended source;
    BlockPool pool(source, "test");
    std::vector<void*> blocks;
    blocks.reserve(3);
    for (int i = 0; i < 3; ++i) blocks.push_back(pool.allocate(600 << 10, stream(1)));
    for (const size_t i : order) pool.release(blocks[i]);
    CHECK(pool.allocate(mib, stream(1)) == blocks[0]);
    CHECK(source.asked == 1);
    pool.release(blocks[0]);
    CHECK(pool.stats().allocated == 0);
    CHECK(pool.stats().peak_allocated == 3 * (600 << 10));
    pool.empty_cache();
    CHECK(source.taken == 0);
    CHECK(pool.stats().cached == 0);
  }
}

TEST_CASE("the smallest block that is large enough") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const large = pool.allocate(40 * mib, stream(1));
  void* const small = pool.allocate(12 * mib, stream(1));
  pool.release(large);
  pool.release(small);
  CHECK(pool.allocate(11 * mib, stream(1)) == small);
  CHECK(pool.allocate(30 * mib, stream(1)) == large);
  CHECK(pool.allocate(9 * mib, stream(1)) == at(large, 30 * mib));
}

TEST_CASE("a block that another stream has used waits for it") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const a = pool.allocate(512, stream(1));
  pool.use_by(a, stream(1));  // its own: nothing to wait for
  pool.use_by(a, stream(2));
  pool.use_by(a, stream(2));
  pool.use_by(a, stream(3));
  pool.release(a);
  CHECK(source.recorded == 2);
  CHECK(pool.in_use().empty());
  CHECK(pool.allocate(512, stream(1)) != a);
  source.done = 1;
  CHECK(pool.allocate(512, stream(1)) != a);
  source.done = 2;
  CHECK(pool.allocate(512, stream(1)) == a);
  CHECK(source.dropped == 2);
}

TEST_CASE("a block is used where any part of it is; memory of others is nobody's here") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const a = pool.allocate(1024, stream(1));
  void* const b = pool.allocate(512, stream(1));
  pool.use_by(at(a, 1023), stream(2));
  pool.release(b);
  CHECK(source.recorded == 0);
  pool.release(a);
  CHECK(source.recorded == 1);
  int elsewhere = 0;
  pool.use_by(&elsewhere, stream(2));
  pool.use_by(b, stream(2));  // free
  CHECK(pool.allocate(512, stream(1)) == b);
  pool.release(b);
  CHECK(source.recorded == 1);
}

TEST_CASE(
    "out of memory: what is cached is given back, what is waited for is waited for, then an error that says all") {
  Pretended source(40 * mib);
  BlockPool pool(source, "cuda:0");
  void* const first = pool.allocate(20 * mib, stream(1));
  void* const second = pool.allocate(16 * mib, stream(1));
  pool.use_by(second, stream(2));
  pool.release(first);
  pool.release(second);
  CHECK(source.done == 0);
  void* const all = pool.allocate(38 * mib, stream(2));
  CHECK(source.done == 1);
  CHECK(source.segments.size() == 1);
  CHECK_THROWS_WITH_AS(pool.allocate(3 * mib, stream(1)),
                       "out of memory on cuda:0: requested 3145728 bytes, in use 39845888, cached 0", OutOfMemory);
  pool.release(all);
  CHECK(pool.allocate(3 * mib, stream(1)) != nullptr);  // goes on
}

TEST_CASE("a limit is kept, whatever the driver would give") {
  Pretended source;
  BlockPool pool(source, "cuda:1", 30 * mib);
  pool.release(pool.allocate(20 * mib, stream(1)));
  void* const a = pool.allocate(24 * mib, stream(1));
  CHECK(source.taken == 24 * mib);
  CHECK_THROWS_WITH_AS(pool.allocate(10 * mib, stream(1)),
                       "out of memory on cuda:1: requested 10485760 bytes, in use 25165824, cached 0, limit 31457280",
                       OutOfMemory);
  pool.release(a);
  CHECK(pool.stats().cache_limit == 30 * mib);
}

TEST_CASE("a captured graph keeps its addresses to itself until it is forgotten") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const before = pool.allocate(512, stream(1));
  pool.release(before);
  const uint64_t graph = pool.begin_capture(stream(1));
  CHECK_THROWS_AS(pool.begin_capture(stream(1)), Error);
  void* const inside = pool.allocate(512, stream(1));
  CHECK(inside != before);
  pool.release(inside);
  CHECK(pool.allocate(512, stream(1)) == inside);
  pool.release(inside);
  pool.end_capture(stream(1));
  CHECK(pool.allocate(512, stream(1)) == before);
  pool.release(before);
  pool.empty_cache();
  CHECK(source.segments.size() == 1);
  CHECK(pool.begin_capture(stream(1), graph) == graph);
  CHECK(pool.allocate(512, stream(1)) == inside);
  pool.end_capture(stream(1));
  pool.release(inside);
  pool.forget_capture(graph);
  pool.empty_cache();
  CHECK(source.taken == 0);
  CHECK_THROWS_WITH_AS(pool.begin_capture(stream(1), graph), "memory of test: no capture has the number 1", Error);
}

TEST_CASE("many blocks of all sizes in several streams: none overlap, nothing is lost") {
  Pretended source(size_t{3} << 30);
  BlockPool pool(source, "test");
  std::mt19937 random(7);
  std::map<char*, size_t> used;
  const auto free_of_others = [&](char* begin, size_t bytes) {
    const auto next = used.lower_bound(begin);
    return (next == used.end() || begin + bytes <= next->first) &&
           (next == used.begin() || std::prev(next)->first + std::prev(next)->second <= begin);
  };
  for (int i = 0; i < 20000; ++i) {
    if (!used.empty() && (random() % 2 == 0 || used.size() > 300)) {
      const auto victim = std::next(used.begin(), static_cast<ptrdiff_t>(random() % used.size()));
      if (random() % 4 == 0) pool.use_by(victim->first, stream(random() % 3));
      pool.release(victim->first);
      used.erase(victim);
      source.done = std::max(source.done, source.recorded - std::min<uintptr_t>(source.recorded, random() % 5));
      continue;
    }
    const size_t bytes = 1 + random() % (size_t{1} << (6 + random() % 19));
    char* const block = static_cast<char*>(pool.allocate(bytes, stream(random() % 3)));
    REQUIRE(free_of_others(block, bytes));
    used[block] = bytes;
  }
  CHECK(pool.in_use().size() == used.size());
  for (const auto& [block, bytes] : used) pool.release(block);
  pool.empty_cache();
  CHECK(source.taken == 0);
  CHECK(source.dropped == source.recorded);
  CHECK(pool.stats().allocated == 0);
}

TEST_CASE("a stream that joined a capture takes from its memory too") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const cached = pool.allocate(1000, stream(2));
  pool.release(cached);
  const uint64_t number = pool.begin_capture(stream(1));
  source.captured = {stream(1), stream(2)};
  CHECK(pool.allocate(1000, stream(2)) != cached);
  CHECK(pool.allocate(1000, stream(3)) != cached);
  source.captured.clear();
  pool.end_capture(stream(1));
  CHECK(pool.allocate(1000, stream(2)) == cached);
  pool.forget_capture(number);
}

TEST_CASE(
    "what is released in a capture: its own goes back, what two streams used at the end, others' with the graph") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const older = pool.allocate(1000, stream(1));
  const uint64_t number = pool.begin_capture(stream(1));
  source.captured = {stream(1), stream(2)};
  void* const own = pool.allocate(1000, stream(1));
  pool.release(own);
  CHECK(pool.allocate(1000, stream(1)) == own);
  pool.use_by(own, stream(2));
  pool.release(own);
  pool.release(older);
  CHECK(source.recorded == 0);  // nobody will see such an event happen
  CHECK(pool.allocate(1000, stream(1)) != own);
  source.captured.clear();
  pool.end_capture(stream(1));
  CHECK(pool.allocate(1000, stream(1)) != older);
  pool.forget_capture(number);
  CHECK(pool.allocate(1000, stream(1)) == older);
}

TEST_CASE("what nobody may read is spoiled: new memory, and what was given back") {
  Pretended source;
  BlockPool pool(source, "test");
  void* const block = pool.allocate(1000, stream(1));
  REQUIRE(source.spoiled.size() == 1);
  CHECK(source.spoiled[0] == std::pair(block, size_t{2} << 20));
  pool.use_by(block, stream(2));
  pool.release(block);
  CHECK(source.spoiled.size() == 1);  // another stream may still read it
  source.done = source.recorded;
  (void)pool.allocate(1, stream(3));
  REQUIRE(source.spoiled.size() == 3);
  CHECK(source.spoiled[1] == std::pair(block, size_t{1024}));
}
