// SPDX-License-Identifier: Apache-2.0
// The ways that data takes between ranks of one host: with the post, in place, staged, over MPI. All give the same
// bits, at every size around their limits.
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>

#include "buffer.h"
#include "ranks.h"
#include "reference.h"

using namespace loom;

namespace {

// Elements of memory that the communicator gave, with test values.
struct SharedBuffer {
  SharedBuffer(Communicator& comm, DType dtype, int64_t count)
      : dtype(dtype), count(count), memory(comm.allocate(static_cast<size_t>(count) * item_size(dtype))) {}
  View view(int64_t begin = 0, int64_t n = -1) const {
    return view_over(static_cast<std::byte*>(memory.get()) + static_cast<size_t>(begin) * item_size(dtype), dtype,
                     {n < 0 ? count - begin : n});
  }
  void set(const Buffer& values) const { std::memcpy(memory.get(), values.memory.data(), values.memory.size()); }
  Buffer read(int64_t begin, int64_t n) const {
    Buffer out(dtype, n);
    if (n > 0) std::memcpy(out.memory.data(), view(begin, n).data, out.memory.size());
    return out;
  }

  DType dtype;
  int64_t count;
  std::shared_ptr<void> memory;
};

// Around what goes with a post (16 KB), what is staged at a time (256 KB), and a cache line; more pieces than a ring
// has boxes (8).
const int64_t sizes_in_bytes[] = {8,       64,       72, 16 << 10, (16 << 10) + 8, 100'000, 256 << 10, (256 << 10) + 8,
                                  700'000, 3'000'000};

enum class Memory { shared, own, mixed };

void check_reductions(Communicator& comm, ReduceOp op, DType dtype, int64_t bytes, Memory memory) {
  CAPTURE(to_string(op));
  CAPTURE(to_string(dtype));
  CAPTURE(bytes);
  CAPTURE(static_cast<int>(memory));
  const int64_t n = bytes / static_cast<int64_t>(item_size(dtype)), ranks = comm.size();
  const SharedBuffer shared(comm, dtype, n * ranks);
  const bool in_shared = memory == Memory::shared || (memory == Memory::mixed && comm.rank() % 2 == 0);

  Buffer own = test_values(dtype, comm.rank(), n);
  shared.set(own);
  comm.all_reduce(in_shared ? shared.view(0, n) : own.view(), op).wait();
  CHECK((in_shared ? shared.read(0, n) : own) == reference(op, dtype, comm.size(), n));

  Buffer whole = test_values(dtype, comm.rank(), n * ranks), part(dtype, n);
  shared.set(whole);
  comm.reduce_scatter(part.view(), in_shared ? shared.view() : whole.view(), op).wait();
  CHECK(part == reference(op, dtype, comm.size(), n, n * comm.rank()));
  CHECK((in_shared ? shared.read(0, n * ranks) : whole) == test_values(dtype, comm.rank(), n * ranks));
}

}  // namespace

TEST_CASE("memory of the communicator is zeroed, its rank's own, and freed by each rank when it likes") {
  for_each_world([](Communicator& comm) {
    SharedBuffer first(comm, f32, 100'000), second(comm, f32, 100'000);
    Buffer zeros(f32, 100'000);
    std::memset(zeros.memory.data(), 0, zeros.memory.size());
    CHECK(first.read(0, 100'000) == zeros);
    first.set(test_values(f32, comm.rank(), 100'000));
    comm.barrier().wait();
    CHECK(first.read(0, 100'000) == test_values(f32, comm.rank(), 100'000));

    if (comm.rank() == 0) second.memory = nullptr;  // and the others go on with theirs
    Buffer own = test_values(f32, comm.rank(), 100'000);
    if (comm.rank() != 0) second.set(own);
    comm.all_reduce(comm.rank() == 0 ? own.view() : second.view()).wait();
    CHECK((comm.rank() == 0 ? own : second.read(0, 100'000)) == reference(ReduceOp::sum, f32, comm.size(), 100'000));

    const SharedBuffer nothing(comm, f32, 0);
    comm.all_reduce(nothing.view()).wait();
    for (int i = 0; i < 20; ++i) {
      const SharedBuffer again(comm, f32, 50'000 + i);
      again.set(test_values(f32, comm.rank(), 50'000 + i));
      comm.all_reduce(again.view()).wait();
      CHECK(again.read(0, 50'000 + i) == reference(ReduceOp::sum, f32, comm.size(), 50'000 + i));
    }
    comm.all_reduce(first.view()).wait();
    CHECK(first.read(0, 100'000) == reference(ReduceOp::sum, f32, comm.size(), 100'000));
  });
}

TEST_CASE("every dtype and reduction, in shared, own and mixed memory") {
  for_each_world([](Communicator& comm) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::mean, ReduceOp::min, ReduceOp::max, ReduceOp::product})
      for (const DType dtype : {f64, f32, f16, bf16, i64, i32, u8})
        for (const Memory memory : {Memory::shared, Memory::own, Memory::mixed})
          if (op != ReduceOp::mean || is_floating(dtype)) check_reductions(comm, op, dtype, 40'000, memory);
  });
}

TEST_CASE("sizes around the limits of each way") {
  for_each_world([](Communicator& comm) {
    for (const int64_t bytes : sizes_in_bytes)
      for (const DType dtype : {f32, bf16})
        for (const Memory memory : {Memory::shared, Memory::own, Memory::mixed})
          check_reductions(comm, ReduceOp::mean, dtype, bytes, memory);
  });
}

TEST_CASE("ranks of several hosts give the same bits") {
  for (const int ranks_per_host : {1, 2, 3})
    for_each_world(
        [](Communicator& comm) {
          for (const int64_t bytes : {int64_t{8}, int64_t{40'000}, int64_t{700'000}})
            for (const Memory memory : {Memory::shared, Memory::own})
              check_reductions(comm, ReduceOp::mean, f32, bytes, memory);
          const auto half = comm.split(comm.rank() % 2, comm.rank());
          check_reductions(*half, ReduceOp::sum, f32, 40'000, Memory::shared);
          const auto pair = comm.split(comm.rank() / 2, comm.rank());
          check_reductions(*pair, ReduceOp::sum, f32, 40'000, Memory::shared);
        },
        {.ranks_per_host = ranks_per_host});
}

TEST_CASE("the same bits every time, whoever comes first") {
  for_each_world([](Communicator& comm) {
    const SharedBuffer shared(comm, f32, 30'000);
    for (int i = 0; i < 200; ++i) {
      Buffer own = test_values(f32, comm.rank(), 30'000);
      shared.set(own);
      if (i % comm.size() == comm.rank()) std::this_thread::sleep_for(std::chrono::microseconds(50));
      comm.all_reduce(shared.view(), ReduceOp::mean).wait();
      comm.all_reduce(own.view(), ReduceOp::mean).wait();
      CHECK(own == reference(ReduceOp::mean, f32, comm.size(), 30'000));
      CHECK(shared.read(0, 30'000) == own);
    }
  });
}

TEST_CASE("gathering from shared memory") {
  for_each_world([](Communicator& comm) {
    const int ranks = comm.size();
    for (const int64_t n : {int64_t{7}, int64_t{5'000}, int64_t{100'001}}) {
      const SharedBuffer whole(comm, f32, n * ranks), own(comm, f32, n);
      Buffer expected(f32, 0);
      for (int r = 0; r < ranks; ++r) {
        const Buffer part = test_values(f32, r, n);
        expected.memory.insert(expected.memory.end(), part.memory.begin(), part.memory.end());
        expected.count += n;
      }
      own.set(test_values(f32, comm.rank(), n));
      Buffer out(f32, n * ranks);
      comm.all_gather(out.view(), own.view()).wait();
      CHECK(out == expected);
      std::memcpy(whole.view(n * comm.rank(), n).data, own.memory.get(), static_cast<size_t>(n) * sizeof(float));
      comm.all_gather(whole.view(), whole.view(n * comm.rank(), n)).wait();
      CHECK(whole.read(0, n * ranks) == expected);
      const std::vector<int64_t> counts(static_cast<size_t>(ranks), n);
      Buffer ragged(f32, n * ranks);
      comm.all_gather(ragged.view(), own.view(), counts).wait();
      CHECK(ragged == expected);
      Buffer sent = test_values(f32, comm.rank(), n);
      comm.broadcast(sent.view(), ranks - 1).wait();
      CHECK(sent == test_values(f32, ranks - 1, n));
    }
  });
}

TEST_CASE("groups of one host side by side, each in memory of its own or of another") {
  for_each_world([](Communicator& comm) {
    const auto same = comm.split(0, -comm.rank());
    const SharedBuffer here(comm, f32, 20'000), there(*same, f32, 20'000);
    for (int i = 0; i < 5; ++i) {
      here.set(test_values(f32, comm.rank(), 20'000));
      there.set(test_values(f32, same->rank(), 20'000));
      const Work a = comm.all_reduce(here.view()), b = same->all_reduce(there.view());
      a.wait();
      b.wait();
      CHECK(here.read(0, 20'000) == reference(ReduceOp::sum, f32, comm.size(), 20'000));
      CHECK(there.read(0, 20'000) == here.read(0, 20'000));
      there.set(test_values(f32, comm.rank(), 20'000));
      comm.all_reduce(there.view()).wait();
      CHECK(there.read(0, 20'000) == here.read(0, 20'000));
    }
  });
}

TEST_CASE("a message larger than what is sent at once goes through while the other rank waits in a collective") {
  for_each_world([](Communicator& comm) {
    if (comm.size() == 1) return;
    Buffer data = test_values(f32, comm.rank(), 1'000'000);
    Work sent;
    if (comm.rank() == 0) sent = comm.send(data.view(), 1);
    if (comm.rank() == 1) comm.recv(data.view(), 0).wait();
    comm.barrier().wait();
    sent.wait();
    if (comm.rank() == 1) CHECK(data == test_values(f32, 0, 1'000'000));
  });
}
