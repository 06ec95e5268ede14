// SPDX-License-Identifier: Apache-2.0
// What only ranks as threads have: ends that are errors instead of the end of the process, and an injected delay.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "buffer.h"
#include "ranks.h"

using namespace loom;
using namespace std::chrono_literals;

namespace {

double seconds(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("an exception on one rank ends the others, and is the one that is rethrown") {
  if (under_mpirun()) return;
  std::atomic<int> ended = 0;
  const auto run = [&](Communicator& comm) {
    const auto pair = comm.split(comm.rank() / 2, 0);
    comm.barrier().wait();
    if (comm.rank() == 2) throw std::runtime_error("disk full");
    const std::string error = error_of([&] { (comm.rank() == 3 ? pair->barrier() : comm.barrier()).wait(); });
    if (error == "aborted by rank 2: disk full") ++ended;
    CHECK(error_of([&] { comm.barrier().wait(); }) == error);
    throw Error(error);
  };
  CHECK(error_of([&] { run_threads(4, run); }) == "rank 2: disk full");
  CHECK(ended == 3);
}

TEST_CASE("an error that all ranks raise is rethrown as it is") {
  if (under_mpirun()) return;
  CHECK(error_of([] { run_threads(3, [](Communicator& comm) { comm.agree(comm.rank() == 1 ? "no file" : ""); }); }) ==
        "rank 1: no file");
  CHECK(error_of([] { run_threads(0, [](Communicator&) {}); }) == "run_threads: 0 ranks, expected at least 1");
}

TEST_CASE("abort from any thread") {
  if (under_mpirun()) return;
  const auto run = [](Communicator& comm) {
    std::thread other;
    if (comm.rank() == 1) other = std::thread([&] { comm.abort("stop"); });
    const std::string error = error_of([&] { comm.recv(Buffer(f32, 1).view(), 1 - comm.rank()).wait(); });
    if (other.joinable()) other.join();
    throw Error(error);
  };
  CHECK(error_of([&] { run_threads(2, run); }) == "aborted by rank 1: stop");
}

TEST_CASE("a timeout names the missing ranks") {
  if (under_mpirun()) return;
  const CommunicatorOptions options{.timeout = 100ms};
  const auto missing = [&](std::vector<int> who) {
    return error_of([&] {
      run_threads(
          4,
          [&](Communicator& comm) {
            float x[5] = {};
            comm.barrier().wait();
            if (std::ranges::count(who, comm.rank()) > 0) {
              std::this_thread::sleep_for(300ms);
              comm.barrier().wait();
            }
            comm.all_reduce(view_over(x, f32, {5})).wait();
          },
          options);
    });
  };
  CHECK(missing({2}) == "timeout after 0.1 s in all_reduce #1 f32[5] sum: rank 2 is missing");
  CHECK(missing({1, 3}) == "timeout after 0.1 s in all_reduce #1 f32[5] sum: ranks 1, 3 are missing");
  CHECK(error_of([&] {
          run_threads(
              2,
              [&](Communicator& comm) {
                float x[5] = {};
                if (comm.rank() == 0)
                  comm.recv(view_over(x, f32, {5}), 1, 7).wait();
                else
                  std::this_thread::sleep_for(300ms), comm.barrier().wait();
              },
              options);
        }) == "timeout after 0.1 s in recv #0 f32[5] from 1 tag 7 on rank 0: rank 1 is missing");
}

TEST_CASE("a rank that ends while others wait for it is named at once") {
  if (under_mpirun()) return;
  const double time = seconds([] {
    CHECK(error_of([] {
            run_threads(2, [](Communicator& comm) {
              if (comm.rank() == 0) comm.barrier().wait();
            });
          }) == "rank 0: rank 1 has left, rank 0 is in barrier #0");
    CHECK(error_of([] {
            run_threads(2, [](Communicator& comm) {
              float x[5] = {};
              if (comm.rank() == 0) comm.recv(view_over(x, f32, {5}), 1, 7).wait();
            });
          }) == "rank 0: rank 1 has left, rank 0 is in recv #0 f32[5] from 1 tag 7");
    CHECK(error_of([] {
            run_threads(2, [](Communicator& comm) {
              float x[5] = {};
              if (comm.rank() == 0) comm.send(view_over(x, f32, {5}), 1, 7).wait();
            });
          }) == "rank 0: rank 1 has left, rank 0 is in send #0 f32[5] to 1 tag 7");
  });
  CHECK(time < 5);
}

TEST_CASE("a mismatch is an error without checked mode too") {
  if (under_mpirun()) return;
  CHECK(error_of([] {
          run_threads(2, [](Communicator& comm) {
            float x[5] = {};
            comm.all_reduce(view_over(x, f32, {5 - comm.rank()})).wait();
          });
        }) == "collective mismatch: rank 0 is in all_reduce #0 f32[5] sum, rank 1 is in all_reduce #0 f32[4] sum");
}

TEST_CASE("an injected delay overlaps with what the ranks do meanwhile") {
  if (under_mpirun()) return;
  const auto overlapped = [](Communicator& comm) {
    float x = 1;
    const Work work = comm.all_reduce(view_over(&x, f32, {1}));
    std::this_thread::sleep_for(100ms);
    work.wait();
    CHECK(x == 2);
  };
  double best = 1e9;  // of three: a busy machine wakes threads late
  for (int i = 0; i < 3; ++i)
    best = std::min(best, seconds([&] { run_threads(2, overlapped, ThreadsOptions{.delay = 100ms}); }));
  CHECK(best >= 0.1);
  CHECK(best < 0.19);
}

TEST_CASE("ranks in disorder: many collectives in two groups, with messages between") {
  if (under_mpirun()) return;
  for (const int ranks : {2, 4})
    run_threads(ranks, [](Communicator& comm) {
      const auto other = comm.split(0, -comm.rank());
      const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
      for (int i = 0; i < 100; ++i) {
        Buffer a = test_values(f32, comm.rank(), 33), b = a, in(f32, 33);
        std::vector<Work> works;
        const auto first = [&] { works.push_back(comm.all_reduce(a.view())); };
        const auto second = [&] { works.push_back(other->all_reduce(b.view(), ReduceOp::max)); };
        const auto message = [&] {
          works.push_back(comm.recv(in.view(), previous, i));
          Buffer out = test_values(f32, comm.rank(), 33);
          comm.send(out.view(), next, i).wait();
        };
        if ((i + comm.rank()) % 2 == 0)
          first(), second(), message();
        else
          second(), first(), message();
        for (const Work& w : works) w.wait();
        CHECK(in == test_values(f32, previous, 33));
      }
    });
}
