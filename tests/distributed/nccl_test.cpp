// SPDX-License-Identifier: Apache-2.0
// What only communicators of GPUs have: order by streams, what becomes of a group whose collective does not end, and of
// memory of the host beside that of devices. Ranks are threads, each with a GPU.
#include <atomic>
#include <chrono>
#include <thread>

#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

#include "buffer.h"
#include "ranks.h"

using namespace loom;
using namespace std::chrono_literals;

namespace {

// Sets an environment variable for a scope.
struct Variable {
  Variable(const char* name, const char* value) : name(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name); }
  const char* name;
};

bool can_run(int ranks) {
  if (under_mpirun() || carrier() != Carrier::nccl) return false;
  return has_devices(ranks);
}

// f on ranks with a GPU each; the error that it ends with.
std::string error_on_gpus(int ranks, const Ranks& f, std::chrono::milliseconds timeout = 60s) {
  return error_of([&] { run_threads(ranks, [&](Communicator& host) { on_devices(host, f); }, {.timeout = timeout}); });
}

double seconds(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("a collective comes after what is in the stream, and what follows its wait after the collective") {
  for_each_world([](Communicator& comm) {
    for (int i = 0; i < 20; ++i) {
      Tensor x = full({1000}, comm.rank());
      for (int k = 0; k < 5; ++k) x = x + 1.0;
      const Work work = comm.all_reduce(x);
      const Tensor beside = full({1000}, 3) * 2.0;  // meanwhile
      work.wait();
      const Tensor y = x * 2.0 + beside;
      const int n = comm.size();
      CHECK(equal(y, full({1000}, n * (n - 1) + 10 * n + 6)));
    }
  });
}

TEST_CASE("a collective may be waited for in another stream") {
  for_each_world([](Communicator& comm) {
    if (default_device().kind == Device::cpu) return;
    const Stream side = stream(default_device(), Lane::copy);
    std::vector<Tensor> data, sums;
    for (int i = 0; i < 20; ++i) {
      const Tensor x = data.emplace_back(full({5000}, i));
      const Work work = comm.all_reduce(x);
      const StreamScope scope(side);
      work.wait();
      sums.push_back(x + 0.0);
    }
    const Event done = side.record();
    current_stream(default_device()).wait(done);
    for (int i = 0; i < 20; ++i) CHECK(equal(sums[static_cast<size_t>(i)], full({5000}, i * comm.size())));
  });
}

TEST_CASE("memory of the host goes over the host's ranks") {
  for_each_world([](Communicator& comm) {
    int64_t x = comm.rank();
    comm.all_reduce(view_over(&x, i64, {1}), ReduceOp::max).wait();
    CHECK(x == comm.size() - 1);
    CHECK(comm.all_gather_bytes("x").size() == static_cast<size_t>(comm.size()));
    CHECK(error_of([&] { comm.agree(comm.rank() == comm.size() - 1 ? "no" : ""); }) ==
          str("rank ", comm.size() - 1, ": no"));
    if (default_device().kind == Device::cpu) return;
    Buffer out(f32, 2 * comm.size()), in(f32, 2);
    float own[2] = {};
    CHECK(
        error_of([&] { comm.all_gather(out.view(), view_over(own, f32, {2})).wait(); }) ==
        str("all_gather on rank ", comm.rank(), " of ", comm.size(), ": out is on ", default_device(), ", in on cpu"));
  });
}

TEST_CASE("memory that the communicator gives lies where it is asked for, and is zero") {
  for_each_world([](Communicator& comm) {
    const auto memory = comm.allocate(4000, default_device());
    const Tensor x = from_blob(memory.get(), {1000}, f32, default_device());
    CHECK(equal(x, zeros({1000})));
    comm.all_reduce(x.add_(1.0)).wait();
    CHECK(equal(x, full({1000}, comm.size())));
  });
}

TEST_CASE("ten minutes, unless LOOM_TIMEOUT says otherwise") {
  CHECK(nccl_options().timeout == 10min);
  const Variable timeout("LOOM_TIMEOUT", "7");
  CHECK(nccl_options().timeout == 7s);
}

TEST_CASE("a rank that does not come: a timeout that names the collective, on all ranks") {
  if (!can_run(2)) return;
  std::atomic<int> told = 0;
  const double time = seconds([&] {
    const std::string error = error_on_gpus(
        2,
        [&](Communicator& comm) {
          const Tensor x = full({5}, 1);
          comm.all_reduce(x, ReduceOp::mean).wait();
          if (comm.rank() == 0) comm.broadcast(x, 1).wait();
          std::this_thread::sleep_for(1s);
          const std::string text = error_of([&] { comm.all_reduce(x).wait(); });
          if (text == "timeout after 0.5 s in broadcast #1 f32[5] root 1 on rank 0 of 2") ++told;
          fail("mine");
        },
        500ms);
    CHECK(error.ends_with("mine"));
  });
  CHECK(told == 2);
  CHECK(time < 30);
}

TEST_CASE("a rank that waits on the host for what never comes is let go") {
  if (!can_run(2)) return;
  const double time = seconds([] {
    const std::string error = error_on_gpus(
        2,
        [](Communicator& comm) {
          const Tensor x = full({5}, 1);
          if (comm.rank() == 0) {
            comm.all_reduce(x).wait();
            static_cast<void>(x.to_vector<float>());  // whatever is in it: the collective was given up
          } else {
            std::this_thread::sleep_for(700ms);
          }
          comm.all_reduce(x).wait();
        },
        300ms);
    CHECK(contains(error, "timeout after 0.3 s in all_reduce #0 f32[5] sum on rank 0 of 2"));
  });
  CHECK(time < 20);
}

TEST_CASE("abort ends the groups that were split from one another, on all ranks") {
  if (!can_run(4)) return;
  std::atomic<int> ended = 0;
  const std::string error = error_on_gpus(4, [&](Communicator& comm) {
    const auto pair = comm.split(comm.rank() / 2, 0);
    const Tensor x = full({3}, 1);
    comm.all_reduce(x).wait();
    pair->all_reduce(x).wait();
    synchronize(default_device());
    comm.barrier().wait();
    if (comm.rank() == 2) pair->abort("enough");
    const std::string text = error_of([&] {
      for (;;) (comm.rank() == 3 ? *pair : comm).all_reduce(x).wait();
    });
    if (text == "aborted by rank 0: enough") ++ended;
    fail("mine");
  });
  CHECK(ended == 4);
  CHECK(error.ends_with("mine"));
}

TEST_CASE("an error that comes later is raised on all ranks") {
  if (!can_run(2) || !contains(nccl_description(), "2.28.9") || !std::getenv("LOOM_NCCL_PLUGIN")) return;
  const Variable fault("LOOM_EMULATED_NCCL_FAULT", "1 2");
  std::atomic<int> told = 0;
  const std::string error = error_on_gpus(2, [&](Communicator& comm) {
    const Tensor x = full({5}, 1);
    comm.all_reduce(x).wait();
    synchronize(default_device());
    const std::string text = error_of([&] {
      for (;;) {
        comm.all_reduce(x).wait();
        std::this_thread::sleep_for(1ms);
      }
    });
    if (contains(text, "all_reduce #1 f32[5] sum on rank ") && contains(text, "unhandled system error")) ++told;
    fail("mine");
  });
  CHECK(told == 2);
  CHECK(error.ends_with("mine"));
}

TEST_CASE("many groups, made and left; work under way when they are left") {
  if (!can_run(2)) return;
  CHECK(error_on_gpus(2, [](Communicator& comm) {
          for (int i = 0; i < 3; ++i) {
            const auto all = comm.split(0, -comm.rank());
            const auto alone = comm.split(comm.rank(), 0);
            CHECK(comm.split(-1, 0) == nullptr);
            const Tensor x = full({100}, 1), y = full({100}, 1);
            const Work a = all->all_reduce(x), b = alone->all_reduce(y);
            for (const Work& w : {a, b}) w.wait();
            CHECK(equal(x, full({100}, 2)));
            CHECK(equal(y, full({100}, 1)));
          }
        }) == "");
}
