// SPDX-License-Identifier: Apache-2.0
// Ranks that end in every way but the right one. tests/distributed/faults.py starts this and judges what becomes of the
// job.
//   ranks_fault CASE threaded|inline
#include <loom/distributed/mpi.h>

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

using namespace loom;

namespace {

void sum(Communicator& comm, int times, int64_t count = 1000) {
  std::vector<float> x(static_cast<size_t>(count), 1.0f);
  for (int i = 0; i < times; ++i) comm.all_reduce(view_over(x.data(), f32, {count})).wait();
}

void sum_in_place(Communicator& comm, int times, int64_t count) {
  const auto x = comm.allocate(static_cast<size_t>(count) * sizeof(float));
  for (int i = 0; i < times; ++i) comm.all_reduce(view_over(x.get(), f32, {count})).wait();
}

// What rank 1 does after three collectives, while the others go on.
int last_rank(Communicator& comm, const std::string& what) {
  if (what == "kill_in_place") sum_in_place(comm, 100, 1'000'000);
  if (what.starts_with("kill") || what.ends_with("_kill")) std::raise(SIGKILL);
  if (what == "segfault") std::raise(SIGSEGV);
  if (what == "throw" || what == "recv_throw" || what == "caught") fail("disk full");
  if (what.ends_with("abort")) comm.abort("no space left");
  if (what.ends_with("_exit3")) std::exit(3);
  if (what.ends_with("_vanish")) ::_exit(0);
  if (what.starts_with("exit") || what.ends_with("_exit")) std::exit(0);
  if (what.starts_with("late")) std::this_thread::sleep_for(std::chrono::seconds(30));
  if (what == "other") comm.barrier().wait();
  if (what == "mismatch") sum(comm, 1, 20);
  if (what == "throw_in_group" || what == "caught_in_group") {
    const auto own = comm.split(0, 0);  // with all
    fail("not a number");
  }
  return 0;  // "early": ends as if all were done
}

View ones(int64_t count) {
  static auto& x = *new std::vector<float>;  // messages under way at std::exit outlive objects
  x.assign(static_cast<size_t>(count), 1.0f);
  return view_over(x.data(), f32, {count});
}

constexpr int64_t small = 10, large = 4'000'000;

// Rank 0 waits in a message that rank 1 never joins.
int wait_for_message(Communicator& comm, const std::string& what) {
  if (comm.rank() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(200));
  if (comm.rank() == 1 && what.starts_with("recv")) comm.send(ones(small), 0, 8).wait();  // not the one it waits for
  if (comm.rank() == 1) return last_rank(comm, what);
  (comm.rank() != 0                 ? comm.barrier()
   : what.starts_with("recv_both")  ? comm.recv(ones(small), 1, 8)
   : what.find("recv") != what.npos ? comm.recv(ones(small), 1, 7)
                                    : comm.send(ones(large), 1, 7))
      .wait();
  comm.recv(ones(small), 1, 8).wait();
  return 0;
}

// Rank 1 sends and ends; rank 0 receives afterwards.
int send_and_leave(Communicator& comm, const std::string& what) {
  const int64_t count = what.starts_with("sent_large") ? large : small;
  if (comm.rank() == 1) {
    const Work work = comm.send(ones(count), 0);
    if (count == small) work.wait();
    return last_rank(comm, what);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  std::vector<float> x(static_cast<size_t>(count));
  comm.recv(view_over(x.data(), f32, {count}), 1).wait();
  for (const float v : x) check(v == 1, "received ", v);
  return 0;
}

int run(const std::string& what, MpiMode mode) {
  MpiOptions options{.mode = mode};
  if (what.starts_with("late") || what.starts_with("never")) options.communicator.timeout = std::chrono::seconds(1);
  if (what == "never_started" && std::getenv("OMPI_COMM_WORLD_RANK") == std::string("1"))
    std::this_thread::sleep_for(std::chrono::seconds(30));
  auto comm = mpi_communicator(options);
  if (what.starts_with("never")) {
    const bool comes = comm->rank() != 1;
    if (what == "never_again") comm = nullptr;
    if (!comes && what == "never") std::this_thread::sleep_for(std::chrono::seconds(30));
    if (comes) sum(*mpi_communicator(options), 3);
    return 0;
  }
  if (what == "clean") {
    sum(*comm, 3);
    const auto second = mpi_communicator(options);
    sum(*second, 3);
    return 0;
  }
  sum(*comm, 3);
  if (what.starts_with("recv") || what.starts_with("send") || what == "late_recv") return wait_for_message(*comm, what);
  if (what.starts_with("sent")) return send_and_leave(*comm, what);
  if (what == "all") comm->agree(comm->rank() == 1 ? "no such file" : "");
  if (comm->rank() == 1) return last_rank(*comm, what);
  if (what.ends_with("in_group")) sum(*comm->split(0, 0), 1 << 30);
  if (what.ends_with("split")) comm->split(0, 0);
  if (what.ends_with("node")) comm->node();
  if (what.ends_with("in_place")) sum_in_place(*comm, 1 << 30, 1'000'000);
  if (what == "mismatch") sum(*comm, 1, comm->rank() == 0 ? 5 : 1'000'000);
  sum(*comm, 1 << 30, what == "kill" ? 1'000'000 : 1000);
  return 0;
}

}  // namespace

int main(int, char** argv) {
  const std::string what = argv[1];
  const MpiMode mode = argv[2] == std::string("inline") ? MpiMode::inline_mode : MpiMode::threaded;
  if (!what.starts_with("caught") && what != "all") return run(what, mode);
  try {
    return run(what, mode);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "caught: %s\n", e.what());
    return 1;
  }
}
