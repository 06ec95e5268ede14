// SPDX-License-Identifier: Apache-2.0
// What only communicators through the host's memory have: pieces, and sends that wait for the device.
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

#include "buffer.h"
#include "ranks.h"
#include "reference.h"

using namespace loom;

namespace {

// f with a communicator of pieces of 96 bytes, where there are GPUs.
void for_each_staged(const Ranks& f) {
  if (carrier() != Carrier::staged) return;
  for_each_world([&](Communicator& comm) {
    const std::shared_ptr<Communicator> shared(std::shared_ptr<void>(), &comm);  // its memory of the host
    f(*staged_communicator(shared, default_device(), {comm.options(), 96}));
  });
}

}  // namespace

TEST_CASE("pieces: every collective of lengths that they divide, and do not") {
  for_each_staged([](Communicator& comm) {
    const int ranks = comm.size(), rank = comm.rank();
    for (const int64_t n : {int64_t{1}, int64_t{23}, int64_t{24}, int64_t{97}}) {
      Buffer sum = test_values(f32, rank, n);
      comm.all_reduce(sum.view()).wait();
      CHECK(sum == reference(ReduceOp::sum, f32, ranks, n));
      Buffer in = test_values(f32, rank, n * ranks), part(f32, n);
      comm.reduce_scatter(part.view(), in.view(), ReduceOp::mean).wait();
      CHECK(part == reference(ReduceOp::mean, f32, ranks, n, n * rank));
      Buffer own = test_values(f32, rank, n), all(f32, n * ranks), turned(f32, n * ranks), back(f32, n);
      comm.all_gather(all.view(), own.view()).wait();
      comm.all_to_all(turned.view(), in.view()).wait();
      for (int r = 0; r < ranks; ++r) {
        CHECK(all.slice(r * n, n) == test_values(f32, r, n));
        CHECK(turned.slice(r * n, n) == test_values(f32, r, n, n * rank));
      }
      const int root = ranks - 1;
      comm.scatter(back.view(), all.view(), root).wait();
      CHECK(back == own);
      Buffer gathered(f32, rank == root ? n * ranks : 0);
      comm.gather(gathered.view(), back.view(), root).wait();
      if (rank == root) CHECK(gathered == all);
      comm.broadcast(own.view(), root).wait();
      CHECK(own == test_values(f32, root, n));
    }
  });
}

TEST_CASE("pieces of a ragged all_gather, some of them empty") {
  for_each_staged([](Communicator& comm) {
    std::vector<int64_t> counts;
    int64_t total = 0;
    for (int r = 0; r < comm.size(); ++r) total += counts.emplace_back((r + 1) % 3 * 40);
    Buffer own = test_values(f32, comm.rank(), counts[static_cast<size_t>(comm.rank())]), all(f32, total);
    comm.all_gather(all.view(), own.view(), counts).wait();
    int64_t begin = 0;
    for (int r = 0; r < comm.size(); ++r) {
      const int64_t n = counts[static_cast<size_t>(r)];
      CHECK(all.slice(begin, n) == test_values(f32, r, n));
      begin += n;
    }
  });
}

TEST_CASE("what is sent is what was there when it was sent") {
  for_each_staged([](Communicator& comm) {
    if (comm.size() == 1) return;
    const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
    std::vector<Tensor> in;
    std::vector<Work> works;
    for (int i = 0; i < 10; ++i) {
      Tensor x = full({1000}, comm.rank());
      for (int k = 0; k < i; ++k) x = x + 1.0;
      works.push_back(comm.send(x, next, i));
      in.push_back(full({1000}, -1));
      works.push_back(comm.recv(in.back(), previous, i));
    }
    for (const Work& w : works) w.wait();
    for (int i = 0; i < 10; ++i) CHECK(equal(in[static_cast<size_t>(i)], full({1000}, previous + i)));
  });
}
