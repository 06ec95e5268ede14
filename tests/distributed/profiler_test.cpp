// SPDX-License-Identifier: Apache-2.0
// Traces of ranks: collectives, on one line of time; training through Fabric.
#include <numeric>
#include <sstream>

#include <loom/accelerators/profiler.h>

#include "../trace_file.h"
#include "fabric_worlds.h"

using namespace fabric_test;
using loom::testing::TraceEvent;
using loom::testing::TraceFile;

namespace {

// The trace of f on all ranks. Ranks that are processes have one each, threads one together, which rank 0 sees.
// Collective; none on ranks that see none.
std::optional<TraceFile> trace_of(Communicator& comm, const std::function<void()>& f) {
  std::optional<Profiler> profiler;
  comm.barrier().wait();
  if (under_mpirun() || comm.rank() == 0) profiler.emplace();
  comm.barrier().wait();
  f();
  comm.barrier().wait();
  std::optional<TraceFile> out;
  if (profiler) {
    const TemporaryFolder folder;
    profiler->export_chrome_trace(folder / "trace.json");
    out.emplace(folder / "trace.json");
  }
  comm.barrier().wait();
  return out;
}

std::vector<TraceEvent> of_rank(std::vector<TraceEvent> spans, int rank) {
  std::erase_if(spans, [&](const TraceEvent& e) { return e.rank != rank; });
  return spans;
}

std::vector<int> ranks_in_trace(const Communicator& comm) {
  if (under_mpirun()) return {comm.rank()};
  std::vector<int> out(static_cast<size_t>(comm.size()));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

}  // namespace

TEST_CASE("profiler: a collective is a span of each rank, where it is carried") {
  if (alone_on_gpu()) return;
  for_each_world([](Communicator& comm) {
    const auto trace = trace_of(comm, [&] {
      const Tensor x = full({1000}, comm.rank());
      comm.all_reduce(View(x)).wait();
      if (on_gpu()) synchronize(x.device());
    });
    if (!trace) return;
    for (const int rank : ranks_in_trace(comm)) {
      auto spans = of_rank(trace->spans("all_reduce", "collective"), rank);
      if (carrier() == Carrier::nccl)
        std::erase_if(spans, [](const TraceEvent& e) { return !e.track.ends_with(" collectives"); });
      if (carrier() == Carrier::staged) {
        std::erase_if(spans, [](const TraceEvent& e) { return e.track != "collectives of GPUs"; });
        spans.resize(1);  // the host's pieces may be inside it
      }
      REQUIRE(spans.size() == 1);
      CHECK(spans[0].args["bytes"] == 4000);
      CHECK(spans[0].args["dtype"] == "f32");
      CHECK(spans[0].args["Group size"] == comm.size());
      CHECK(spans[0].args["op"] == "sum");
      if (carrier() == Carrier::host && !under_mpirun()) CHECK(spans[0].track == "collectives");
    }
    CHECK(trace->is_nested());
  });
}

TEST_CASE("profiler: a message is a span of both ranks") {
  if (on_gpu()) return;
  for_each_world([](Communicator& comm) {
    if (comm.size() < 2) return;
    const auto trace = trace_of(comm, [&] {
      const Tensor x = ones({10});
      if (comm.rank() == 0) comm.send(View(x), 1).wait();
      if (comm.rank() == 1) comm.recv(View(x), 0).wait();
    });
    if (!trace) return;
    for (const int rank : ranks_in_trace(comm)) {
      const auto spans = of_rank(trace->spans(rank == 0 ? "send" : "recv", "collective"), rank);
      REQUIRE(spans.size() == (rank < 2 ? 1 : 0));
      if (rank > 1) continue;
      CHECK(spans[0].track == "messages");
      CHECK(spans[0].args["bytes"] == 40);
      CHECK(spans[0].args["peer"] == 1 - rank);
    }
  });
}

// What ends on one rank has begun on all others.
TEST_CASE("profiler: traces of ranks lie on one line of time") {
  if (on_gpu()) return;
  for_each_world([](Communicator& comm) {
    constexpr int barriers = 5;
    const auto trace = trace_of(comm, [&] {
      for (int i = 0; i < barriers; ++i) comm.barrier().wait();
    });
    std::string own;
    if (trace)
      for (const int rank : ranks_in_trace(comm)) {
        const auto spans = of_rank(trace->spans("barrier", "collective"), rank);
        CHECK(spans.size() > barriers);  // the last one comes after them
        if (spans.size() > barriers)
          for (size_t i = spans.size() - 2; i > spans.size() - barriers; --i)
            own += str(spans[i].begin, " ", spans[i].end, " ");
      }
    std::vector<int64_t> latest_begin(barriers), earliest_end(barriers, std::numeric_limits<int64_t>::max());
    for (const std::string& text : comm.all_gather_bytes(own)) {
      std::istringstream numbers(text);
      size_t i = 0;
      for (int64_t begin = 0, end = 0; numbers >> begin >> end; i = (i + 1) % (barriers - 2)) {
        latest_begin[i] = std::max(latest_begin[i], begin);
        earliest_end[i] = std::min(earliest_end[i], end);
      }
    }
    // Each process reads two clocks, one after the other.
    for (size_t i = 0; i + 2 < barriers; ++i) CHECK(latest_begin[i] < earliest_end[i] + 1'000'000);
  });
}

TEST_CASE("profiler: a step of training through Fabric") {
  for_each_world([](Communicator& comm) {
    Fabric fabric(over(comm));
    std::optional<TraceFile> trace;
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      trace = trace_of(comm, [&, &model = model, &optimizer = optimizer] {
        fabric.backward(sum(model(rows(0, 4, 6))));
        optimizer.step();
        if (on_gpu()) synchronize(fabric.device());
      });
    });
    if (!trace) return;
    for (const int rank : ranks_in_trace(comm)) {
      const auto one = [&](const std::string& name) {
        const auto found = of_rank(trace->spans(name), rank);
        REQUIRE(!found.empty());
        return found[0];
      };
      const TraceEvent backward = one("Fabric.backward"), step = one("Fabric.step");
      CHECK(backward.holds(one("linear backward")));
      CHECK(step.holds(one("SGD.step")));
      const auto modules = [&] {
        std::string names;
        for (const TraceEvent& e : trace->events())
          if (e.category == "module" && e.rank == rank) names += str(e.name, "; ");
        return names;
      }();
      CHECK_MESSAGE(contains(modules, "fabric_test::Net; "), modules);
      CHECK_MESSAGE(contains(modules, "first (Linear); "), modules);
      if (comm.size() > 1) CHECK(!of_rank(trace->spans("all_reduce", "collective"), rank).empty());
    }
  });
}
