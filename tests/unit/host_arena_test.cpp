#include <doctest/doctest.h>
#include <sys/resource.h>

#include <array>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include <loom/accelerators/host_arena.h>

using namespace loom;

namespace {

constexpr size_t mib = size_t{1} << 20;

HostBlock* allocate(HostArena& arena, size_t bytes) {
  HostBlock* const block = arena.take(bytes);
  return block != nullptr ? block : arena.extend(bytes);
}

// Bytes that the system says of the process.
size_t status_of(const std::string& line) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (size_t kib = 0; word == line && status >> kib) return kib << 10;
  return 0;
}
// Of its own memory: what has pages.
size_t resident() { return status_of("RssAnon:"); }

// While it lives, the process may have that many more bytes of addresses.
class MoreAddresses {
 public:
  explicit MoreAddresses(size_t bytes) {
    getrlimit(RLIMIT_AS, &old_);
    const rlimit limit{status_of("VmSize:") + bytes, old_.rlim_max};
    setrlimit(RLIMIT_AS, &limit);
  }
  MoreAddresses(const MoreAddresses&) = delete;
  MoreAddresses& operator=(const MoreAddresses&) = delete;
  ~MoreAddresses() { setrlimit(RLIMIT_AS, &old_); }

 private:
  rlimit old_{};
};

}  // namespace

TEST_CASE("arena: a block has its bytes, apart from others', and lies on a cache line") {
  HostArena arena;
  HostBlock* const first = allocate(arena, 3 * mib + 5);
  HostBlock* const second = allocate(arena, mib);
  CHECK(first->bytes >= 3 * mib + 5);
  CHECK(reinterpret_cast<size_t>(first->memory()) % 64 == 0);
  CHECK(HostBlock::of(first->memory()) == first);
  CHECK(second->memory() >= first->memory() + first->bytes + HostBlock::header);
  arena.give(first);
  arena.give(second);
}

TEST_CASE("arena: freed neighbours become one block, whichever goes first") {
  for (const std::vector<size_t>& order : {std::vector<size_t>{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}}) {
    HostArena arena;
    std::array<HostBlock*, 4> blocks{};
    for (HostBlock*& block : blocks) block = allocate(arena, mib);  // the last one keeps the rest of the range away
    char* const begin = blocks[0]->memory();
    for (const size_t i : order) arena.give(blocks[i]);
    HostBlock* const whole = arena.take(3 * mib);
    REQUIRE(whole != nullptr);
    CHECK(whole->memory() == begin);
    arena.give(whole);
    arena.give(blocks[3]);
  }
}

TEST_CASE("arena: of what is free the smallest that fits is cut") {
  HostArena arena;
  std::vector<HostBlock*> blocks;
  for (const size_t bytes : {8 * mib, mib, 3 * mib, mib, 5 * mib, mib}) blocks.push_back(allocate(arena, bytes));
  char* const three = blocks[2]->memory();
  for (const size_t i : {0, 2, 4}) arena.give(blocks[i]);
  HostBlock* const first = arena.take(2 * mib);
  REQUIRE(first != nullptr);
  CHECK(first->memory() == three);
  HostBlock* const rest = arena.take(mib - HostBlock::header);
  REQUIRE(rest != nullptr);
  CHECK(rest->memory() > three);
  CHECK(rest->memory() < three + 3 * mib);
  CHECK(arena.take(9 * mib) == nullptr);
  for (HostBlock* const block : {first, rest, blocks[1], blocks[3], blocks[5]}) arena.give(block);
}

TEST_CASE("arena: free pages go back to the system, those in use keep what they hold") {
  HostArena arena;
  HostBlock* const first = allocate(arena, 40 * mib);
  HostBlock* const kept = allocate(arena, mib);
  HostBlock* const last = allocate(arena, 20 * mib);
  for (HostBlock* const block : {first, kept, last}) std::memset(block->memory(), 7, block->bytes);
  const size_t before = resident();
  arena.give(first);
  arena.give(last);
  CHECK(arena.resident() >= 60 * mib);
  arena.trim();
  CHECK(arena.resident() == 0);
  CHECK(resident() + 50 * mib < before);
  for (size_t i = 0; i < kept->bytes; i += 1000) REQUIRE(kept->memory()[i] == 7);
  HostBlock* const again = arena.take(40 * mib);
  CHECK(again == first);
  CHECK(again->resident == 0);
  HostBlock* const more = allocate(arena, 30 * mib);
  REQUIRE(more != nullptr);
  std::memset(more->memory(), 1, more->bytes);
  for (HostBlock* const block : {again, kept, more}) arena.give(block);
  arena.trim();
  CHECK(arena.take(mib) == nullptr);  // nothing is left
}

TEST_CASE("arena: pages count once, whatever their blocks are joined with and cut into") {
  HostArena arena;
  std::array<HostBlock*, 6> blocks{};
  for (HostBlock*& block : blocks) block = allocate(arena, 10 * mib);
  const auto pages_of = [&](std::initializer_list<size_t> given) {
    for (const size_t i : given) arena.give(blocks[i]);
    return arena.resident() / mib;
  };
  CHECK(pages_of({0}) == 10);
  arena.trim();
  CHECK(pages_of({1}) == 10);  // behind 10 MiB without pages
  CHECK(pages_of({2}) == 20);
  HostBlock* const front = arena.take(5 * mib);
  REQUIRE(front == blocks[0]);
  CHECK(arena.resident() / mib <= 20);
  arena.give(front);
  CHECK(arena.resident() / mib <= 25);  // any part of the front may have been used meanwhile
  CHECK(pages_of({4, 3}) <= 45);
  arena.trim();
  CHECK(arena.resident() == 0);
  CHECK(pages_of({5}) <= 10);
}

TEST_CASE("arena: a block of more than a range has, and one that no system gives") {
  HostArena arena;
  HostBlock* const large = allocate(arena, size_t{3} << 30);  // its pages are never touched
  REQUIRE(large != nullptr);
  HostBlock* const other = allocate(arena, mib);
  REQUIRE(other != nullptr);
  CHECK(arena.extend(size_t{1} << 46) == nullptr);
  for (const size_t bytes : {~size_t{0}, HostArena::most + 1}) {
    CHECK(arena.extend(bytes) == nullptr);
    CHECK(arena.take(bytes) == nullptr);
  }
  arena.give(other);
  arena.give(large);
}

TEST_CASE("arena: a process that may not have the addresses of a range gets a smaller one, or none") {
  HostArena arena;
  HostBlock *first = nullptr, *second = nullptr, *third = nullptr;
  {
    const MoreAddresses limit(300 * mib);
    first = arena.extend(50 * mib);
    second = arena.extend(60 * mib);
    third = arena.extend(250 * mib);
  }
  REQUIRE(first != nullptr);
  REQUIRE(second != nullptr);
  CHECK(third == nullptr);
  for (HostBlock* const block : {first, second}) {
    std::memset(block->memory(), 1, block->bytes);
    arena.give(block);
  }
  third = allocate(arena, 250 * mib);
  REQUIRE(third != nullptr);
  arena.give(third);
}

TEST_CASE("arena: blocks of any sizes keep their bytes, and all that is free becomes one") {
  HostArena arena;
  std::mt19937 random(1);
  struct Held {
    HostBlock* block;
    unsigned char mark;
  };
  std::vector<Held> held;
  size_t in_use = 0, most = 0;
  const auto holds = [](const Held& h) {
    const auto* const memory = reinterpret_cast<const unsigned char*>(h.block->memory());
    return memory[0] == h.mark && memory[h.block->bytes / 2] == h.mark && memory[h.block->bytes - 1] == h.mark;
  };
  for (int i = 0; i < 3000; ++i) {
    if (held.size() < 40 && random() % 2 == 0) {
      HostBlock* const block = allocate(arena, HostArena::least + random() % (2 * mib));
      REQUIRE(block != nullptr);
      const auto mark = static_cast<unsigned char>(random());
      for (const size_t at : {size_t{0}, block->bytes / 2, block->bytes - 1})
        block->memory()[at] = static_cast<char>(mark);
      held.push_back({block, mark});
      most = std::max(most, in_use += block->bytes);
    } else if (!held.empty()) {
      const size_t at = random() % held.size();
      REQUIRE(holds(held[at]));
      in_use -= held[at].block->bytes;
      arena.give(held[at].block);
      held[at] = held.back();
      held.pop_back();
    }
    if (i % 500 == 499) arena.trim();
    REQUIRE(arena.resident() + in_use <= most * 2);  // pages serve any later size
  }
  for (const Held& h : held) {
    REQUIRE(holds(h));
    arena.give(h.block);
  }
  const size_t free = arena.resident();
  arena.trim();
  CHECK(free > 0);
  CHECK(arena.take(HostArena::least) == nullptr);
}
