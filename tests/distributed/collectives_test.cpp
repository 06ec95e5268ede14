// SPDX-License-Identifier: Apache-2.0
// Every communicator passes these: results, order of sums, asynchrony, groups.
#include <algorithm>
#include <limits>
#include <numeric>

#include "buffer.h"
#include "ranks.h"
#include "reference.h"

using namespace loom;

namespace {

constexpr DType all_dtypes[] = {f64, f32, f16, bf16, i64, i32, u8};
constexpr int64_t sizes[] = {0, 1, 7, 1025};

bool defined(ReduceOp op, DType dtype) {
  if (dtype == boolean) return op == ReduceOp::min || op == ReduceOp::max;
  return op != ReduceOp::mean || is_floating(dtype);
}

void check_reductions(Communicator& comm, ReduceOp op, DType dtype, int64_t n) {
  if (!defined(op, dtype)) return;
  CAPTURE(to_string(op));
  CAPTURE(to_string(dtype));
  CAPTURE(n);
  Buffer all = test_values(dtype, comm.rank(), n);
  comm.all_reduce(all.view(), op).wait();
  CHECK(as_expected(all, reference(op, dtype, comm.size(), n)));

  Buffer in = test_values(dtype, comm.rank(), n * comm.size()), out(dtype, n);
  comm.reduce_scatter(out.view(), in.view(), op).wait();
  CHECK(as_expected(out, reference(op, dtype, comm.size(), n, n * comm.rank())));
  CHECK(in == test_values(dtype, comm.rank(), n * comm.size()));
}

}  // namespace

TEST_CASE("sums and other reductions, in rank order") {
  for_each_world([](Communicator& comm) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::mean, ReduceOp::min, ReduceOp::max, ReduceOp::product})
      for (const DType dtype : all_dtypes)
        for (const int64_t n : sizes) check_reductions(comm, op, dtype, n);
    for (const ReduceOp op : {ReduceOp::min, ReduceOp::max}) check_reductions(comm, op, boolean, 1025);
  });
}

TEST_CASE("large reductions: all_reduce and reduce_scatter give the same bits") {
  for_each_world([](Communicator& comm) {
    for (const DType dtype : {f32, bf16, f64}) {
      const int64_t n = 300'000;  // divides by 4
      check_reductions(comm, ReduceOp::mean, dtype, n);
      Buffer whole = test_values(dtype, comm.rank(), n), in = whole, part(dtype, n / comm.size());
      comm.all_reduce(whole.view()).wait();
      comm.reduce_scatter(part.view(), in.view()).wait();
      if (sums_in_rank_order()) CHECK(part == whole.slice(comm.rank() * part.count, part.count));
    }
    check_reductions(comm, ReduceOp::sum, f32, 300'001);
    check_reductions(comm, ReduceOp::sum, f32, 2'500'003);
  });
}

TEST_CASE("means over three ranks, too, are quotients") {
  for_each_world([](Communicator& comm) {
    if (comm.size() < 4) return;
    const auto three = comm.split(comm.rank() < 3 ? 0 : -1, comm.rank());
    if (!three) return;
    for (const DType dtype : {f32, bf16, f64})
      for (const int64_t n : {int64_t{7}, int64_t{1025}, int64_t{40'001}})
        check_reductions(*three, ReduceOp::mean, dtype, n);
  });
}

TEST_CASE("NaN wins min and max") {
  for_each_world([](Communicator& comm) {
    for (int who = 0; who < comm.size(); ++who)
      for (const ReduceOp op : {ReduceOp::min, ReduceOp::max}) {
        float x = comm.rank() == who ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
        comm.all_reduce(view_over(&x, f32, {1}), op).wait();
        CHECK(x != x);
      }
  });
}

TEST_CASE("collectives that move data") {
  for_each_world([](Communicator& comm) {
    const int ranks = comm.size(), rank = comm.rank();
    for (const DType dtype : all_dtypes)
      for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{1025}}) {
        CAPTURE(to_string(dtype));
        CAPTURE(n);
        Buffer everything(dtype, n * ranks);
        for (int64_t i = 0; i < n * ranks; ++i)
          everything.set(i,
                         test_value(dtype, static_cast<int>(i / std::max<int64_t>(n, 1)), i % std::max<int64_t>(n, 1)));
        Buffer own = test_values(dtype, rank, n);

        Buffer gathered(dtype, n * ranks);
        comm.all_gather(gathered.view(), own.view()).wait();
        CHECK(gathered == everything);

        for (const int root : {0, ranks - 1}) {
          Buffer sent = test_values(dtype, rank, n);
          comm.broadcast(sent.view(), root).wait();
          CHECK(sent == test_values(dtype, root, n));

          Buffer at_root(dtype, rank == root ? n * ranks : 0);
          comm.gather(at_root.view(), own.view(), root).wait();
          if (rank == root) CHECK(at_root == everything);

          Buffer back(dtype, n);
          comm.scatter(back.view(), at_root.view(), root).wait();
          CHECK(back == own);
        }

        Buffer blocks = test_values(dtype, rank, n * ranks), turned(dtype, n * ranks), expected(dtype, n * ranks);
        comm.all_to_all(turned.view(), blocks.view()).wait();
        for (int64_t i = 0; i < n * ranks; ++i)
          expected.set(i, test_value(dtype, static_cast<int>(i / n), rank * n + i % n));
        CHECK(turned == expected);
        comm.barrier().wait();
      }
  });
}

TEST_CASE("a part may lie in the whole") {
  for_each_world([](Communicator& comm) {
    const int64_t n = 100;
    Buffer whole = test_values(f32, comm.rank(), n * comm.size());
    const View own = whole.view(n * comm.rank(), n);
    comm.reduce_scatter(own, whole.view()).wait();
    CHECK(as_expected(whole.slice(n * comm.rank(), n), reference(ReduceOp::sum, f32, comm.size(), n, n * comm.rank())));
    comm.all_gather(whole.view(), own).wait();
    CHECK(as_expected(whole, reference(ReduceOp::sum, f32, comm.size(), n * comm.size())));
  });
}

TEST_CASE("ragged all_gather") {
  for_each_world([](Communicator& comm) {
    for (const int64_t unit : {int64_t{1}, int64_t{1000}}) {
      std::vector<int64_t> counts(static_cast<size_t>(comm.size()));
      for (size_t r = 0; r < counts.size(); ++r) counts[r] = static_cast<int64_t>((r + 1) % 3) * unit;  // 1, 2, 0, 1
      const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
      Buffer own = test_values(bf16, comm.rank(), counts[static_cast<size_t>(comm.rank())]), out(bf16, total);
      comm.all_gather(out.view(), own.view(), counts).wait();
      int64_t begin = 0;
      for (int r = 0; r < comm.size(); ++r) {
        const int64_t n = counts[static_cast<size_t>(r)];
        CHECK(out.slice(begin, n) == test_values(bf16, r, n));
        begin += n;
      }
      std::vector<int64_t> none(static_cast<size_t>(comm.size()), 0);
      comm.all_gather(View{.dtype = f32, .shape = {0}, .strides = {1}},
                      View{.dtype = f32, .shape = {0}, .strides = {1}}, none)
          .wait();
    }
  });
}

TEST_CASE("many collectives under way, waited for in any order") {
  for_each_world([](Communicator& comm) {
    std::vector<Buffer> data;
    data.reserve(50);
    for (int i = 0; i < 50; ++i) data.push_back(test_values(f32, comm.rank(), 100 + 37 * i));
    std::vector<Work> works;
    works.reserve(data.size());
    for (Buffer& b : data) works.push_back(comm.all_reduce(b.view()));
    for (size_t i = works.size(); i-- > 0;) works[i].wait();
    if (default_device().kind != Device::cpu) synchronize(default_device());
    for (const Work& w : works) {
      CHECK(w.done());
      w.wait();
    }
    for (const Buffer& b : data) CHECK(as_expected(b, reference(ReduceOp::sum, f32, comm.size(), b.count)));
  });
}

TEST_CASE("send and recv: a ring, either order, any size") {
  for_each_world([](Communicator& comm) {
    if (comm.size() == 1) return;
    const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
    for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{300'000}})
      for (const bool send_first : {true, false, comm.rank() % 2 == 0}) {
        Buffer out = test_values(f32, comm.rank(), n), in(f32, n), in2(f32, n);
        Work sent, received;
        if (send_first) sent = comm.send(out.view(), next);
        received = comm.recv(in.view(), previous);
        if (!send_first) sent = comm.send(out.view(), next);
        received.wait();
        sent.wait();
        CHECK(in == test_values(f32, previous, n));
      }
    // Tags tell messages apart; between them collectives may pass.
    Buffer a(i32, 3), b(i32, 5), first = test_values(i32, comm.rank(), 3), second = test_values(i32, comm.rank(), 5);
    const Work wa = comm.recv(a.view(), previous, 1), wb = comm.recv(b.view(), previous, 2);
    comm.barrier().wait();
    const Work sb = comm.send(second.view(), next, 2), sa = comm.send(first.view(), next, 1);
    comm.barrier().wait();
    for (const Work& w : {wb, wa, sa, sb}) w.wait();
    CHECK(a == test_values(i32, previous, 3));
    CHECK(b == test_values(i32, previous, 5));
  });
}

TEST_CASE("split: even and odd, reversed, nested, left out") {
  for_each_world([](Communicator& comm) {
    const auto half = comm.split(comm.rank() % 2, comm.rank());
    CHECK(half->rank() == comm.rank() / 2);
    int64_t x = comm.rank(), expected = 0;
    for (int r = comm.rank() % 2; r < comm.size(); r += 2) expected += r;
    half->all_reduce(view_over(&x, i64, {1})).wait();
    CHECK(x == expected);

    const auto alone = half->split(half->rank(), 0);
    CHECK(alone->size() == 1);
    alone->barrier().wait();

    const auto reversed = comm.split(0, -comm.rank());
    CHECK(reversed->rank() == comm.size() - 1 - comm.rank());
    const auto some = comm.split(comm.rank() == 0 ? -1 : 7, 0);
    CHECK((some == nullptr) == (comm.rank() == 0));
    if (some) CHECK(some->size() == comm.size() - 1);
  });
}

TEST_CASE("groups do not hold each other up") {
  for_each_world([](Communicator& comm) {
    const auto other = comm.split(0, comm.rank());
    Buffer a = test_values(f32, comm.rank(), 1000), b = a;
    Work wa, wb;
    if (comm.rank() == 0 || collectives_block) {
      wa = comm.all_reduce(a.view());
      wb = other->all_reduce(b.view());
    } else {
      wb = other->all_reduce(b.view());
      wa = comm.all_reduce(a.view());
    }
    wb.wait();
    wa.wait();
    CHECK(a == b);
  });
}

TEST_CASE("bytes of any length") {
  for_each_world([](Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
      const std::string text(static_cast<size_t>(1000 * root), static_cast<char>('a' + root));
      CHECK(comm.broadcast_bytes(comm.rank() == root ? text : "other", root) == text);
    }
    const auto all = comm.all_gather_bytes(std::string(static_cast<size_t>(comm.rank() * 3), 'x'));
    REQUIRE(all.size() == static_cast<size_t>(comm.size()));
    for (size_t r = 0; r < all.size(); ++r) CHECK(all[r] == std::string(r * 3, 'x'));
    CHECK(comm.all_gather_bytes("") == std::vector<std::string>(all.size()));
  });
}

TEST_CASE("several communicators, one after the other") {
  for (int i = 0; i < 3; ++i)
    for_each_world([](Communicator& comm) {
      int32_t x = 1;
      comm.all_reduce(view_over(&x, i32, {1})).wait();
      CHECK(x == comm.size());
    });
}

TEST_CASE("counts above the transport's limit go in pieces") {
  for_each_world(
      [](Communicator& comm) {
        const int ranks = comm.size(), rank = comm.rank();
        for (const int64_t n : {int64_t{99}, int64_t{100}, int64_t{1001}}) {
          check_reductions(comm, ReduceOp::sum, f32, n);
          Buffer own = test_values(f32, rank, n), all(f32, n * ranks), back(f32, n);
          comm.all_gather(all.view(), own.view()).wait();
          for (int r = 0; r < ranks; ++r) CHECK(all.slice(r * n, n) == test_values(f32, r, n));
          comm.scatter(back.view(), all.view(), ranks - 1).wait();
          CHECK(back == own);
          comm.broadcast(own.view(), ranks - 1).wait();
          CHECK(own == test_values(f32, ranks - 1, n));
          if (ranks == 1) continue;
          const Work sent = comm.send(back.view(), (rank + 1) % ranks);
          comm.recv(own.view(), (rank + ranks - 1) % ranks).wait();
          sent.wait();
          CHECK(own == test_values(f32, (rank + ranks - 1) % ranks, n));
        }
      },
      {.chunk_elements = 100});
}

TEST_CASE("the placement of ranks on nodes") {
  for_each_world([](Communicator& comm) {
    const NodePlacement place = node_placement(comm);
    CHECK(place.local_rank == comm.rank());
    CHECK(place.local_size == comm.size());
    CHECK(place.node_rank == 0);
    CHECK(place.nodes == 1);
  });
}
