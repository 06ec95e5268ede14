#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <loom/accelerators/cores.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/threads.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif

namespace {

using Parts = std::set<std::pair<int64_t, int64_t>>;

Parts parts_of(int64_t count, int64_t grain) {
  Parts parts;
  std::mutex mutex;
  loom::parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    parts.emplace(begin, end);
  });
  return parts;
}

struct WithThreads {
  explicit WithThreads(int n) : before(loom::num_threads()) { loom::set_num_threads(n); }
  ~WithThreads() { loom::set_num_threads(before); }
  int before;
};

int64_t sum_to(int64_t n) {
  std::atomic<int64_t> sum = 0;
  loom::parallel_for(n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum += i;
  });
  return sum;
}

}  // namespace

TEST_CASE("threads: parts cover the range once, are contiguous and not below the grain") {
  for (const int threads : {1, 2, 3, 7}) {
    const WithThreads with(threads);
    for (const int64_t count : {0, 1, 5, 31, 100, 1025})
      for (const int64_t grain : {1, 7, 100}) {
        int64_t next = 0;
        const Parts parts = parts_of(count, grain);
        for (const auto& [begin, end] : parts) {
          CHECK(begin == next);
          CHECK((end - begin >= grain || parts.size() == 1));
          next = end;
        }
        CHECK(next == count);
        CHECK(parts.size() <= static_cast<size_t>(threads));
      }
  }
}

TEST_CASE("threads: the partition is the same nested, from many callers and from one") {
  const WithThreads with(4);
  const Parts expected = parts_of(1025, 7);
  std::atomic<int> same = 0;
  loom::parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) same += parts_of(1025, 7) == expected;
  });
  CHECK(same == 8);
  std::vector<std::thread> callers;
  callers.reserve(4);
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i) same += parts_of(1025, 7) == expected;
    });
  for (std::thread& t : callers) t.join();
  CHECK(same == 8 + 800);
}

TEST_CASE("threads: the first part's exception arrives, and the pool works on") {
  const WithThreads with(4);
  for (int round = 0; round < 50; ++round) {
    std::string text;
    try {
      loom::parallel_for(400, 1, [](int64_t begin, int64_t) { throw std::runtime_error(std::to_string(begin)); });
    } catch (const std::runtime_error& e) {
      text = e.what();
    }
    CHECK(text == "0");
    CHECK(sum_to(1000) == 499500);
  }
}

TEST_CASE("threads: work after a pause wakes the workers") {
  const WithThreads with(3);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(sum_to(1000) == 499500);
  }
}

TEST_CASE("threads: many short calls") {
  const WithThreads with(4);
  for (int i = 0; i < 5000; ++i) REQUIRE(sum_to(64) == 2016);
}

#if !defined(__SANITIZE_THREAD__) && !__has_feature(thread_sanitizer)  // it forbids threads after a fork
TEST_CASE("threads: a forked child has a pool of its own") {
  const WithThreads with(3);
  CHECK(sum_to(1000) == 499500);
  const pid_t child = fork();
  if (child == 0) _exit(sum_to(1000) == 499500 ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}
#endif

TEST_CASE("threads: the number of threads") {
  CHECK(loom::num_threads() >= 1);
  CHECK(loom::available_cores() >= 1);
  CHECK_THROWS_WITH_AS(loom::set_num_threads(0), "set_num_threads: expected 1 to 1024 threads, got 0", loom::Error);
}

TEST_CASE("cores: a thread that leaves one is on another, and may go on to any") {
  std::thread([] {
    const std::vector<int> cores = loom::available_core_ids();
    const int core = loom::current_core();
    if (core < 0) return;
    int left = 0, moves = 0;
    for (int turn = 0; turn < 20; ++turn) {
      const int before = loom::current_core();
      moves += loom::leave_core(before, turn);
      left += loom::current_core() != before;  // the system may have moved it back since
      REQUIRE(loom::available_core_ids() == cores);
    }
    CHECK((left > 0) == (moves > 0));  // some systems let no thread move
    if (cores.size() == 1) CHECK(moves == 0);
    loom::leave_core(-1, 0);
    CHECK(loom::available_core_ids() == cores);
  }).join();
}

TEST_CASE("threads: one that keeps to itself runs the same parts, all of them itself") {
  const WithThreads with(4);
  const Parts expected = parts_of(100, 7);
  std::thread([&] {
    loom::keep_to_one_thread();
    CHECK(parts_of(100, 7) == expected);
    std::set<std::thread::id> ran;
    loom::parallel_for(100, 7, [&](int64_t, int64_t) { ran.insert(std::this_thread::get_id()); });
    CHECK(ran == std::set{std::this_thread::get_id()});
  }).join();
}
