#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

#include <loom/accelerators/machine.h>

#include "array.h"
#include "temporary_folder.h"

using namespace loom;
using testing::cpu;

TEST_CASE("memory: blocks are aligned, and all of a block is usable") {
  for (const size_t bytes :
       {1ul, 63ul, 64ul, 65ul, 1000ul, 4096ul, 100'000ul, (1ul << 20) + 1, 2ul << 20, (5ul << 20) + 7}) {
    void* const block = cpu().allocate(bytes);
    CHECK(reinterpret_cast<size_t>(block) % 64 == 0);
    std::memset(block, 1, bytes);
    cpu().release(block);
  }
}

TEST_CASE("memory: no bytes, no block") {
  CHECK(cpu().allocate(0) == nullptr);
  cpu().release(nullptr);
}

TEST_CASE("memory: a released block is handed out again and counted") {
  for (const size_t bytes : {1ul << 17, 1ul << 20}) {
    cpu().empty_cache();
    const MemoryStats start = memory_stats();
    CHECK(start.cached == 0);
    void* const first = cpu().allocate(bytes);
    const int64_t taken = memory_stats().allocated - start.allocated;
    CHECK(taken >= static_cast<int64_t>(bytes));
    cpu().release(first);
    CHECK(memory_stats().cached == taken);
    void* const second = cpu().allocate(bytes - 100);
    CHECK(second == first);
    CHECK(memory_stats().cached <= taken - static_cast<int64_t>(bytes));  // a page that it could do without
    CHECK(memory_stats().cache_hits == start.cache_hits + 1);
    CHECK(memory_stats().allocations == start.allocations + 2);
    cpu().release(second);
    empty_cache();
    CHECK(memory_stats().cached == 0);
    CHECK(memory_stats().allocated == start.allocated);
  }
}

TEST_CASE("memory: no more is kept than the limit, whatever is released") {
  empty_cache();
  const int64_t limit = memory_stats().cache_limit;
  std::vector<void*> blocks;
  const auto allocate = [&](size_t count, size_t bytes) {
    for (size_t i = 0; i < count; ++i) std::memset(blocks.emplace_back(cpu().allocate(bytes)), 1, bytes);
  };
  allocate(4, 10ul << 20);
  allocate(2, 40ul << 20);
  allocate(4, 10ul << 20);
  allocate(100, 200ul << 10);
  allocate(2000, 4000);
  allocate(4, 1ul << 20);
  for (void* const block : blocks) {
    const int64_t cached = memory_stats().cached, allocated = memory_stats().allocated;
    cpu().release(block);
    const int64_t size = allocated - memory_stats().allocated;
    REQUIRE(memory_stats().cached <= limit);
    // What there is room for stays; else what was released last.
    constexpr int64_t headers = 128;  // of neighbours that it may be joined with
    if (cached + size + headers <= limit) REQUIRE(memory_stats().cached >= cached + size);
    if (cached + size > limit && size <= limit) {
      REQUIRE(memory_stats().cached >= size);
      REQUIRE(memory_stats().cached <= size + 4096);  // headers of blocks that it was joined with
    }
  }
  empty_cache();
}

TEST_CASE("memory: the peak is the highest since its reset") {
  reset_peak_memory_stats();
  const int64_t before = memory_stats().allocated;
  CHECK(memory_stats().peak_allocated == before);
  void* const block = cpu().allocate(3 << 20);
  cpu().release(block);
  CHECK(memory_stats().allocated == before);
  CHECK(memory_stats().peak_allocated >= before + (3 << 20));
  CHECK(memory_stats().peak_allocated <= before + (3 << 20) + 4096);
}

TEST_CASE("memory: blocks waste at most a quarter, large ones a page") {
  for (size_t bytes = 64; bytes < 64ul << 20; bytes += bytes / 7 + 1) {
    const int64_t before = memory_stats().allocated;
    void* const block = cpu().allocate(bytes);
    const auto taken = static_cast<double>(memory_stats().allocated - before);
    CHECK(taken >= static_cast<double>(bytes));
    CHECK(taken <= (bytes >= 1ul << 18 ? static_cast<double>(bytes) + 4096 : static_cast<double>(bytes) * 1.25 + 64));
    cpu().release(block);
  }
}

TEST_CASE("memory: what the machine does not have is an error that says how much") {
  const std::string text = testing::error_of([] { cpu().allocate(std::numeric_limits<size_t>::max() / 2); });
  CHECK(text.starts_with("out of memory on cpu: requested 9223372036854775807 bytes, in use "));
  CHECK(text.find(", cached ") != std::string::npos);
}

TEST_CASE("memory: threads allocate and release, each other's blocks too") {
  const int64_t before = memory_stats().allocated;
  std::vector<std::vector<void*>> blocks(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t)
    threads.emplace_back([&blocks, t] {
      for (size_t i = 0; i < 1000; ++i) {
        blocks[t].push_back(cpu().allocate(i % 10 == 0 ? (300ul << 10) + i * 1000 : 1 + i * 37 % 5000));
        std::memset(blocks[t].back(), static_cast<int>(t), 1);
        if (i % 3 == 0) {
          cpu().release(blocks[t].back());
          blocks[t].pop_back();
        }
      }
    });
  for (std::thread& t : threads) t.join();
  for (const auto& list : blocks)
    for (void* const block : list) cpu().release(block);
  CHECK(memory_stats().allocated == before);
}

TEST_CASE("memory: limits of control groups, of the group and of those it lies in, versions 1 and 2") {
  const TemporaryFolder folder;
  const auto write = [&](const std::filesystem::path& name, const std::string& text) {
    std::filesystem::create_directories((folder / name.string()).parent_path());
    std::ofstream(folder / name.string()) << text;
  };
  const auto limit = [&] { return control_group_memory(folder / "membership", folder / "groups"); };
  constexpr int64_t none = std::numeric_limits<int64_t>::max();
  CHECK(limit() == none);
  write("membership", "0::/job/step\n");
  CHECK(limit() == none);
  write("groups/job/step/memory.max", "max\n");
  CHECK(limit() == none);
  write("groups/job/memory.max", "5000000\n");
  CHECK(limit() == 5000000);
  write("groups/job/step/memory.max", "4000000\n");
  CHECK(limit() == 4000000);
  write("groups/memory.max", "3000000\n");  // a container that sees its own group as the root
  CHECK(limit() == 3000000);
  write("membership", "12:cpu,cpuacct:/other\n7:memory:/docker/a:b\n1:name=systemd:/x\n");
  CHECK(limit() == none);
  write("groups/memory/memory.limit_in_bytes", "9223372036854771712\n");  // version 1's "none"
  CHECK(limit() == 9223372036854771712);
  write("groups/memory/docker/a:b/memory.limit_in_bytes", "2000000\n");
  CHECK(limit() == 2000000);
  CHECK(usable_memory() > 0);
}

TEST_CASE("memory: the cache's limit is a quarter of what the process may use") {
  if (std::getenv("LOOM_CACHE_LIMIT") == nullptr)
    CHECK(memory_stats().cache_limit == usable_memory() / 4 / local_ranks());
}
