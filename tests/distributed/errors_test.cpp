// SPDX-License-Identifier: Apache-2.0
// What goes wrong, and how it reads.
#include <chrono>
#include <cstdlib>
#include <thread>

#include "buffer.h"
#include "ranks.h"

using namespace loom;

namespace {

// Sets an environment variable for a scope.
struct Variable {
  Variable(const char* name, const char* value) : name(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name); }
  const char* name;
};

}  // namespace

TEST_CASE("arguments are checked before anything is sent") {
  for_each_world([](Communicator& comm) {
    const int ranks = comm.size();
    const std::string on = str(" on rank ", comm.rank(), " of ", ranks, ": ");
    Buffer a(f32, 6 * ranks), b(f32, 6), d(f64, 6);
    const View good = b.view();
    View strided = view_over(b.memory.data(), f32, {3, 2});
    std::swap(strided.strides[0], strided.strides[1]);
    View cuda = good, null = good;
    cuda.device = "cuda:1";
    null.data = nullptr;

    CHECK(error_of([&] { comm.all_reduce(strided).wait(); }) ==
          "all_reduce" + on + "data is not dense: shape [3, 2], strides [1, 2]; make it contiguous first");
    CHECK(error_of([&] { comm.all_reduce(cuda).wait(); }) ==
          str("all_reduce", on, "data is on cuda:1, which the ", comm.name(), " communicator does not serve"));
    CHECK(error_of([&] { comm.broadcast(null).wait(); }) ==
          "broadcast" + on + "data has no memory, expected 6 elements");
    CHECK(error_of([&] { comm.broadcast(good, ranks).wait(); }) ==
          str("broadcast", on, "root ", ranks, " is not a rank of the group"));
    CHECK(error_of([&] { comm.gather(a.view(), good, -1).wait(); }) ==
          "gather" + on + "root -1 is not a rank of the group");
    CHECK(error_of([&] { comm.all_gather(a.view(), view_over(b.memory.data(), f32, {5})).wait(); }) ==
          str("all_gather", on, "out has ", 6 * ranks, " elements, expected ", ranks, " x 5"));
    CHECK(error_of([&] { comm.reduce_scatter(view_over(b.memory.data(), f32, {5}), a.view()).wait(); }) ==
          str("reduce_scatter", on, "in has ", 6 * ranks, " elements, expected ", ranks, " x 5"));
    CHECK(error_of([&] { comm.all_to_all(good, d.view()).wait(); }) == "all_to_all" + on + "out is f32, in is f64");
    CHECK(error_of([&] { comm.all_gather(a.view(), good, std::vector<int64_t>(7, 1)).wait(); }) ==
          str("all_gather", on, "7 counts, expected one for each of ", ranks, " ranks"));
    CHECK(error_of([&] {
            comm.all_gather(a.view(), good, std::vector<int64_t>(static_cast<size_t>(ranks), 5)).wait();
          }) == str("all_gather", on, "in has 6 elements, expected counts[", comm.rank(), "] = 5"));
    CHECK(error_of([&] { comm.send(good, comm.rank()).wait(); }) ==
          "send" + on + "the peer is this rank; copy instead");
    CHECK(error_of([&] { comm.recv(good, ranks).wait(); }) ==
          str("recv", on, "peer ", ranks, " is not a rank of the group"));
    if (ranks > 1)
      CHECK(error_of([&] { comm.send(good, comm.rank() == 0 ? 1 : 0, -1).wait(); }) ==
            "send" + on + "tag -1, expected 0 to 32766");

    Buffer i(i64, 4), t(boolean, 4);
    CHECK(error_of([&] { comm.all_reduce(i.view(), ReduceOp::mean).wait(); }) ==
          "all_reduce" + on + "mean of i64 is not defined; expected a floating dtype");
    CHECK(error_of([&] { comm.all_reduce(t.view()).wait(); }) ==
          "all_reduce" + on + "sum of boolean is not defined; expected min or max");
    comm.barrier().wait();  // and the group goes on
  });
}

TEST_CASE("agree: the first failing rank's text, on all ranks") {
  for_each_world([](Communicator& comm) {
    comm.agree("");
    const int last = comm.size() - 1;
    CHECK(error_of([&] { comm.agree(comm.rank() == last ? "disk full" : ""); }) == str("rank ", last, ": disk full"));
    CHECK(error_of([&] { comm.agree(str("no ", comm.rank())); }) == "rank 0: no 0");
    comm.barrier().wait();
  });
}

TEST_CASE("checked mode names both sides, on every rank") {
  for_each_world(
      [](Communicator& comm) {
        if (comm.size() == 1) return;
        const bool odd = comm.rank() == 1;
        Buffer five(f32, 5), three(f32, 3), other(f64, 5);
        const auto mismatch = [&](const Work& work) { work.wait(); };
        comm.all_reduce(five.view()).wait();
        CHECK(error_of([&] { mismatch(odd ? comm.broadcast(three.view()) : comm.all_reduce(five.view())); }) ==
              "collective mismatch: rank 0 is in all_reduce #1 f32[5] sum, rank 1 is in broadcast #1 f32[3]");
        CHECK(error_of([&] { mismatch(comm.all_reduce(odd ? three.view() : five.view())); }) ==
              "collective mismatch: rank 0 is in all_reduce #2 f32[5] sum, rank 1 is in all_reduce #2 f32[3] sum");
        CHECK(error_of([&] { mismatch(comm.all_reduce(odd ? other.view() : five.view(), ReduceOp::max)); }) ==
              "collective mismatch: rank 0 is in all_reduce #3 f32[5] max, rank 1 is in all_reduce #3 f64[5] max");
        CHECK(error_of([&] { mismatch(comm.all_reduce(five.view(), odd ? ReduceOp::min : ReduceOp::max)); }) ==
              "collective mismatch: rank 0 is in all_reduce #4 f32[5] max, rank 1 is in all_reduce #4 f32[5] min");
        CHECK(error_of([&] { mismatch(comm.broadcast(five.view(), odd ? 1 : 0)); }) ==
              "collective mismatch: rank 0 is in broadcast #5 f32[5], rank 1 is in broadcast #5 f32[5] root 1");
        CHECK(error_of([&] { mismatch(odd ? comm.barrier() : comm.broadcast(five.view())); }) ==
              "collective mismatch: rank 0 is in broadcast #6 f32[5], rank 1 is in barrier #6");
        if (comm.rank() < 2) {  // the others take no part
          const Work work = odd ? comm.recv(five.view(), 0) : comm.send(five.view(), 1);
          work.wait();
        }
        comm.all_reduce(five.view()).wait();
      },
      {.communicator = {.checked = true}});
}

// Messages from rank 0 to rank 1. What is wrong with one rank 1 is told; rank 0 on threads only, but it gets on.
void check_messages(Communicator& comm) {
  if (comm.size() == 1) return;
  const auto told = [&](const View& sent, const View& expected, int tag) {
    const Work work = comm.rank() == 0   ? comm.send(sent, 1, tag)
                      : comm.rank() == 1 ? comm.recv(expected, 0, tag)
                                         : Work();
    return error_of([&] { work.wait(); });
  };
  const int knowing = comm.name() == "mpi" ? 1 : 0;
  const auto expect = [&](const std::string& error) {
    return comm.rank() >= knowing && comm.rank() <= 1 ? error : std::string();
  };
  for (const int64_t n : {int64_t{5}, int64_t{300'000}}) {
    const std::string much = str('[', n, ']'), less = str('[', n - 1, ']');
    Buffer floats = test_values(f32, 0, n), integers(i32, n), shorter(f32, n - 1), halves(f16, n), in(f32, n);
    CHECK(told(floats.view(), integers.view(), 0) ==
          expect(str("recv: rank 1 expects i32", much, " with tag 0, rank 0 sent f32", much)));
    CHECK(told(halves.view(), shorter.view(), 3) ==
          expect(str("recv: rank 1 expects f32", less, " with tag 3, rank 0 sent f16", much)));
    CHECK(told(floats.view(), shorter.view(), 0) ==
          expect(str("recv: rank 1 expects f32", less, " with tag 0, rank 0 sent f32", much)));
    CHECK(told(shorter.view(), floats.view(), 0) ==
          expect(str("recv: rank 1 expects f32", much, " with tag 0, rank 0 sent f32", less)));
    // The next ones arrive as ever, also those that came before the error was found.
    const Work first = comm.rank() == 0 ? comm.send(integers.view(), 1) : Work();
    CHECK(told(floats.view(), in.view(), 1).empty());
    if (comm.rank() == 1) CHECK(in == test_values(f32, 0, n));
    const Work second = comm.rank() == 1 ? comm.recv(integers.view(), 0) : Work();
    for (const Work& w : {first, second}) w.wait();
  }
  comm.barrier().wait();
}

TEST_CASE("a message of another dtype or count is an error that names both sides") {
  for_each_world(check_messages);
  for_each_world(check_messages, {.communicator = {.checked = true}});
}

TEST_CASE("messages of several dtypes with one tag, received in order while others are on their way") {
  for_each_world([](Communicator& comm) {
    if (comm.size() == 1) return;
    for (const int64_t n : {int64_t{3}, int64_t{1'000'000}}) {
      Buffer a = test_values(f64, 0, n), b = test_values(i32, 0, n), c = test_values(f64, 1, n);
      Buffer x(f64, n), y(i32, n), z(f64, n);
      std::vector<Work> works;
      if (comm.rank() == 0) works = {comm.send(a.view(), 1), comm.send(b.view(), 1), comm.send(c.view(), 1)};
      if (comm.rank() == 1) {
        comm.recv(x.view(), 0).wait();
        std::this_thread::sleep_for(std::chrono::milliseconds(120));  // what follows is there, nobody asks for it yet
        comm.recv(y.view(), 0).wait();
        works = {comm.recv(z.view(), 0)};
      }
      for (const Work& w : works) w.wait();
      if (comm.rank() == 1) CHECK((x == a && y == b && z == c));
    }
  });
}

TEST_CASE("checked mode changes no result, and an observer sees each collective once") {
  for_each_world(
      [](Communicator& comm) {
        std::vector<std::string> seen;
        comm.set_observer([&](const Collective& c) { seen.push_back(to_string(c)); });
        int64_t x = 1;
        comm.all_reduce(view_over(&x, i64, {1})).wait();
        comm.barrier().wait();
        CHECK(x == comm.size());
        CHECK(seen == std::vector<std::string>{"all_reduce #0 i64[1] sum", "barrier #1"});
      },
      {.communicator = {.checked = true}});
}

TEST_CASE("options from the environment") {
  {
    const Variable timeout("LOOM_TIMEOUT", "2.5"), check("LOOM_CHECK", "1");
    const auto options = CommunicatorOptions::from_environment();
    CHECK(options.timeout == std::chrono::milliseconds(2500));
    CHECK(options.checked);
  }
  CHECK(!CommunicatorOptions::from_environment().checked);
  for (const char* bad : {"", "soon", "0", "-1", "5s", "nan", "inf"}) {
    const Variable timeout("LOOM_TIMEOUT", bad);
    CHECK(error_of([] { CommunicatorOptions::from_environment(); }) ==
          str("LOOM_TIMEOUT: expected seconds above 0, got '", bad, "'"));
  }
  const Variable check("LOOM_CHECK", "yes");
  CHECK(error_of([] { CommunicatorOptions::from_environment(); }) == "LOOM_CHECK: expected 0 or 1, got 'yes'");
}

TEST_CASE("the mode from the environment") {
  if (!under_mpirun()) return;
  {
    const Variable mode("LOOM_MPI_MODE", "fast");
    CHECK(error_of([] { mpi_communicator(); }) == "LOOM_MPI_MODE: expected threaded, inline or automatic, got 'fast'");
  }
  for (const char* name : {"threaded", "inline", "automatic"}) {
    const Variable mode("LOOM_MPI_MODE", name);
    mpi_communicator()->barrier().wait();
  }
}

TEST_CASE("the group of one") {
  const auto comm = self_communicator();
  CHECK(comm->size() == 1);
  Buffer a = test_values(f16, 0, 9), b(f16, 9);
  comm->all_reduce(a.view(), ReduceOp::mean).wait();
  CHECK(a == test_values(f16, 0, 9));
  comm->reduce_scatter(b.view(), a.view()).wait();
  CHECK(b == a);
  comm->all_gather(b.view(), test_values(f16, 3, 9).view(), {9}).wait();
  CHECK(b == test_values(f16, 3, 9));
  CHECK(comm->broadcast_bytes("x") == "x");
  CHECK(comm->split(0, 0)->size() == 1);
  CHECK(comm->split(-1, 0) == nullptr);
  CHECK(error_of([&] { comm->agree("broken"); }) == "rank 0: broken");
  CHECK(error_of([&] { comm->send(a.view(), 0).wait(); }) ==
        "send on rank 0 of 1: the peer is this rank; copy instead");
  comm->abort("enough");
  CHECK(error_of([&] { comm->barrier().wait(); }) == "aborted by rank 0: enough");
}
