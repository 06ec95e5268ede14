// SPDX-License-Identifier: Apache-2.0
// Traces: what is in them, and what is not.
#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

#include <loom/accelerators/profiler.h>
#include <loom/autograd/ops.h>
#include <loom/data/data_loader.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/create.h>

#include "../error_of.h"
#include "../trace_file.h"
#include "temporary_folder.h"

using namespace loom;
using loom::testing::error_of;
using loom::testing::TraceEvent;
using loom::testing::TraceFile;

namespace {

TraceFile exported(Profiler& profiler) {
  const TemporaryFolder folder;
  profiler.export_chrome_trace(folder / "trace.json");
  return TraceFile(folder / "trace.json");
}

int64_t count_spans(const TraceFile& trace) { return std::ranges::count(trace.events(), "X", &TraceEvent::phase); }

}  // namespace

TEST_CASE("profiler: an op is a span of its thread, inside the user's range") {
  const Tensor a = ones({2, 3}), b = ones({3, 4});
  Profiler profiler;
  {
    const auto range = record_function("outer");
    const Tensor c = matmul(a, b);
  }
  std::thread([&] { const Tensor d = relu(a); }).join();
  const TraceFile trace = exported(profiler);
  const auto outer = trace.spans("outer", "user"), product = trace.spans("matmul", "op"), other = trace.spans("relu");
  REQUIRE(outer.size() == 1);
  REQUIRE(product.size() == 1);
  REQUIRE(other.size() == 1);
  CHECK(outer[0].holds(product[0]));
  CHECK(product[0].end > product[0].begin);
  CHECK(outer[0].track == "main");
  CHECK(other[0].thread != outer[0].thread);
  CHECK(other[0].track.starts_with("thread "));
  CHECK(trace.is_nested());
  CHECK(trace.json()["otherData"]["dropped"] == 0);
}

TEST_CASE("profiler: backward nodes, and the ops of their rules inside them") {
  const Tensor x = ones({4, 3}).requires_grad_(), w = ones({3, 2}).requires_grad_();
  Profiler profiler;
  sum(matmul(x, w)).backward();
  const TraceFile trace = exported(profiler);
  const auto node = trace.spans("matmul backward", "backward");
  REQUIRE(node.size() == 1);
  CHECK(trace.spans("sum backward", "backward").size() == 1);
  const auto products = trace.spans("matmul", "op");
  CHECK(std::ranges::any_of(products, [&](const TraceEvent& e) { return node[0].holds(e); }));
  CHECK(trace.is_nested());
}

TEST_CASE("profiler: optimizer steps") {
  nn::Linear net(3, 2);
  optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
  sum(net(ones({1, 3}))).backward();
  Profiler profiler;
  sgd.step();
  CHECK(exported(profiler).spans("SGD.step", "optimizer").size() == 1);
}

TEST_CASE("profiler: shapes and dtypes of what ops are given, where they are asked for") {
  const Tensor a = ones({2, 3}), b = ones({3, 4}), none;
  {
    Profiler profiler({.record_shapes = true});
    const Tensor c = linear(a, b.t().contiguous(), none), d = cat({a, a}, 0), e = a.to(i64);
    const TraceFile trace = exported(profiler);
    const auto args = trace.spans("linear").at(0).args;
    CHECK(args["Input Dims"] == nlohmann::json::parse("[[2, 3], [4, 3], []]"));
    CHECK(args["Input type"] == nlohmann::json::parse(R"(["f32", "f32", ""])"));
    CHECK(trace.spans("cat").at(0).args["Input Dims"] == nlohmann::json::parse("[[2, 3], [2, 3]]"));
  }
  Profiler profiler;
  const Tensor c = relu(a);
  CHECK(exported(profiler).spans("relu").at(0).args.empty());
}

TEST_CASE("profiler: an exception ends the ranges that it leaves") {
  Profiler profiler;
  CHECK_THROWS_AS(matmul(ones({2, 3}), ones({2, 3})), Error);
  const Tensor x = relu(ones({3}));
  const TraceFile trace = exported(profiler);
  REQUIRE(trace.spans("matmul").size() == 1);
  REQUIRE(trace.spans("relu").size() == 1);
  CHECK(trace.spans("matmul")[0].end <= trace.spans("relu")[0].begin);
}

TEST_CASE("profiler: several in turn; nothing is recorded between them") {
  const Tensor x = ones({3});
  Profiler first;
  Tensor y = relu(x);
  first.stop();
  y = sigmoid(x);
  const TraceFile one = exported(first);
  Profiler second;
  y = tanh(x);
  const TraceFile two = exported(second);
  CHECK(one.spans("relu").size() == 1);
  CHECK(count_spans(one) == 1);
  CHECK(two.spans("tanh").size() == 1);
  CHECK(count_spans(two) == 1);
}

TEST_CASE("profiler: a range that is open when it begins or ends is in no trace") {
  const Tensor x = ones({3});
  std::optional<Profiler> profiler;
  {
    const auto before = record_function("before");
    profiler.emplace();
    const Tensor y = relu(x);
  }
  {
    const auto after = record_function("after");
    profiler->stop();
  }
  const TraceFile trace = exported(*profiler);
  CHECK(count_spans(trace) == 1);
  CHECK(trace.spans("relu").size() == 1);
}

TEST_CASE("profiler: two at once is an error") {
  std::optional<Profiler> first(std::in_place);
  CHECK(
      error_of([] { const Profiler second; }) ==
      "Profiler: a trace is being recorded already, by Profiler; a process records one at a time: stop that one first");
  first.reset();
  CHECK(error_of([] { const Profiler second; }).empty());
}

TEST_CASE("profiler: what max_events has no room for is counted") {
  const Tensor x = ones({3});
  Profiler profiler({.max_events = 10});
  for (int i = 0; i < 25; ++i) const Tensor y = relu(x);
  CHECK(profiler.dropped() == 15);
  const TraceFile trace = exported(profiler);
  CHECK(count_spans(trace) == 10);
  CHECK(trace.json()["otherData"]["dropped"] == 15);
  CHECK(error_of([] { const Profiler none({.max_events = 0}); }) == "Profiler: max_events is 0, expected more than 0");
}

TEST_CASE("profiler: steps") {
  const Tensor x = ones({3});
  Profiler profiler;
  for (int i = 0; i < 3; ++i) {
    const Tensor y = relu(x);
    profiler.step();
  }
  const TraceFile trace = exported(profiler);
  for (int i = 0; i < 3; ++i) {
    const auto step = trace.spans(str("ProfilerStep#", i));
    REQUIRE(step.size() == 1);
    CHECK(step[0].holds(trace.spans("relu").at(static_cast<size_t>(i))));
  }
  CHECK(trace.is_nested());
}

TEST_CASE("profiler: samples of memory, where they are asked for") {
  Profiler profiler({.profile_memory = true});
  const Tensor x = relu(ones({1 << 16}));
  const TraceFile trace = exported(profiler);
  const auto sample = std::ranges::find(trace.events(), "memory cpu", &TraceEvent::name);
  REQUIRE(sample != trace.events().end());
  CHECK(sample->phase == "C");
  CHECK(sample->args["allocated"] >= (1 << 18));
  CHECK(sample->args["reserved"] >= sample->args["allocated"]);
}

TEST_CASE("profiler: a loader's batches, and the threads that make them") {
  struct Numbers {
    int64_t size() const { return 4; }
    Tensor get(int64_t i) const { return full({2}, static_cast<double>(i)); }
  };
  data::DataLoader loader(Numbers(), {.batch_size = 2, .num_workers = 1});
  Profiler profiler;
  for (const Tensor& batch : loader) CHECK(batch.defined());
  const TraceFile trace = exported(profiler);
  CHECK(trace.spans("DataLoader.next", "loader").size() == 2);
  const auto made = trace.spans("DataLoader.collate", "loader");
  REQUIRE(made.size() == 2);
  CHECK(made[0].track == "data loader");
}

TEST_CASE("profiler: any text is a name") {
  Profiler profiler;
  { const auto range = record_function("a \"b\" \\ \n\x01 \xc3\xa9 \xff \xe2\x82"); }
  CHECK(exported(profiler).spans("a \"b\" \\ \n\x01 \xc3\xa9 \xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd").size() == 1);
}

TEST_CASE("profiler: a file that cannot be written") {
  const TemporaryFolder folder;
  Profiler profiler;
  const auto missing = folder / "no/trace.json";
  CHECK(error_of([&] { profiler.export_chrome_trace(missing); }) ==
        str("chrome trace: ", missing.string(), ": cannot create the file: No such file or directory"));
  CHECK(error_of([&] {
          profiler.export_chrome_trace(folder.path());
        }).starts_with(str("chrome trace: ", folder.path().string(), ": cannot replace the file: ")));
  CHECK(folder.count() == 0);
  profiler.export_chrome_trace(folder / "trace.json");
  CHECK(folder.count() == 1);
}

TEST_CASE("profiler: the file of each rank") {
  CHECK(profile::path_of_rank("runs/trace.json", 2) == "runs/trace.rank2.json");
  CHECK(profile::path_of_rank("trace", 0) == "trace.rank0");
}

// Threads record while recordings begin and end.
TEST_CASE("profiler: recordings beside threads that compute") {
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      const Tensor x = ones({8});
      while (!stop) const Tensor y = relu(x) + x;
    });
  for (int i = 0; i < 20; ++i) {
    Profiler profiler({.profile_memory = i % 2 == 0, .max_events = i % 3 == 0 ? 100 : 100'000});
    const Tensor y = tanh(ones({8}));
    if (i % 5 != 0) continue;
    CHECK(exported(profiler).is_nested());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}
