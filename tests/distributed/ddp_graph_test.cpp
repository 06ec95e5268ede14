// SPDX-License-Identifier: Apache-2.0
// Steps of ranks as CUDA graphs: backward, the mean of the gradients and the optimizer, recorded once and repeated. On
// the CPU a step is called, which has to be the same.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include <loom/distributed/default_hooks.h>
#include <loom/distributed/join.h>
#include <loom/nn/optim/adam.h>
#include <loom/tensor/device_graph.h>

#include "ddp_models.h"

using namespace ddp_test;
using namespace std::chrono_literals;

namespace {

// Staged collectives go through the host, which a captured step does without.
bool can_capture() { return carrier() != Carrier::staged; }

// Losses and parameters of ten steps, each of two micro-batches, with a parameter in a bucket of its own.
std::vector<Tensor> train(Communicator& comm, bool as_graph, DdpOptions options) {
  Net net = seeded();
  options.bucket_cap_mb = 1e-4;
  Ddp ddp(comm, nn::parameters(net), {}, options);
  optim::AdamW adamw(nn::parameters(net), {.lr = 0.02});
  const Tensor input = zeros({8, 6}), target = zeros({8, 3});
  DeviceGraph graph(as_graph ? default_device() : Device());
  Tensor loss;
  std::vector<Tensor> out;
  for (int step = 0; step < 10; ++step) {
    input.copy_(samples(100 * step + 8 * comm.rank(), 8, 6));
    target.copy_(samples(100 * step + 8 * comm.rank() + 50, 8, 3));
    graph.run([&] {
      const auto part = [&](int64_t i) {
        return ddp.forward([&] { return mse_loss(net(input.narrow(0, 4 * i, 4)), target.narrow(0, 4 * i, 4)); });
      };
      {
        const auto unsynced = ddp.no_sync();
        part(0).backward();
      }
      loss = part(1);
      loss.backward();
      adamw.step();
      adamw.zero_grad();
    });
    out.push_back(loss.detach().to(Device()));
  }
  CHECK(graph.is_captured() == (as_graph && default_device().kind == Device::cuda));
  CHECK(adamw.step_counts().taken == 10);
  std::vector<Tensor> parameters;
  for (const NamedTensor& p : nn::parameters(net)) parameters.push_back(p.tensor.detach());
  CHECK(same_on_all(comm, parameters));
  for (const Tensor& p : parameters) out.push_back(p.to(Device()));
  return out;
}

// What a graph does with x, twice; then the same as it is, on another tensor.
void check_repeats(const Tensor& x, const std::function<Tensor(const Tensor&)>& f) {
  const Tensor other = x.clone();
  DeviceGraph graph(x.device());
  Tensor y;
  graph.capture([&] { y = f(x); });
  for (int i = 0; i < 2; ++i) {
    graph.replay();
    CHECK(equal(y, f(other)));
    CHECK(equal(x, other));
    for (const Tensor& t : {x, other}) t.add_(i + 1.0);
  }
}

// f on two ranks with a GPU each; the error that it ends with.
std::string error_on_two(const Ranks& f, std::chrono::milliseconds timeout) {
  return error_of([&] { run_threads(2, [&](Communicator& host) { on_devices(host, f); }, {.timeout = timeout}); });
}

bool has_two_gpus() { return !under_mpirun() && carrier() == Carrier::nccl && has_devices(2); }

}  // namespace

TEST_CASE("a captured step of ranks trains as the step does, bit for bit") {
  if (!can_capture()) return;
  for_each_world([](Communicator& comm) {
    const std::vector<DdpOptions> ways = {
        {}, {.comm_hook = bf16_compress_hook()}, {.static_graph = true}, {.gradient_as_bucket_view = false}};
    for (const DdpOptions& options : ways) {
      const auto graph = train(comm, true, options), steps = train(comm, false, options);
      REQUIRE(graph.size() == steps.size());
      for (size_t i = 0; i < graph.size(); ++i) CHECK(equal(graph[i], steps[i]));
    }
  });
}

TEST_CASE("every collective in a graph") {
  if (!can_capture()) return;
  for_each_world([](Communicator& comm) {
    const int n = comm.size();
    const Tensor x = full({3, 2 * n}, comm.rank() + 1);
    check_repeats(x, [&](const Tensor& t) {
      comm.all_reduce(t, ReduceOp::max).wait();
      return t * 2.0;
    });
    check_repeats(x, [&](const Tensor& t) {
      comm.broadcast(t, n - 1).wait();
      return t + 1.0;
    });
    check_repeats(x, [&](const Tensor& t) {
      const Tensor all = empty({n, 3, 2 * n}), scattered = empty({6}), exchanged = empty({3, 2 * n});
      const Work one = comm.all_gather(all, t), two = comm.reduce_scatter(scattered, t);
      const Tensor beside = t * 3.0;
      const Work three = comm.all_to_all(exchanged, t);
      for (const Work& w : {one, two, three}) w.wait();
      return cat({all.reshape({-1}), scattered, exchanged.reshape({-1}), beside.reshape({-1})}, 0);
    });
  });
}

TEST_CASE("a graph between collectives as they are, in one order on all ranks") {
  if (!can_capture()) return;
  for_each_world([](Communicator& comm) {
    const Tensor x = full({100}, 1), y = full({100}, 1);
    DeviceGraph graph(default_device());
    graph.capture([&] { comm.all_reduce(x).wait(); });
    Tensor expected = full({100}, 1);
    for (int i = 0; i < 4; ++i) {
      const Work work = comm.all_reduce(y);
      graph.replay();
      work.wait();
      expected = expected * static_cast<double>(comm.size());
      CHECK(equal(x, expected));
      CHECK(equal(y, expected));
    }
  });
}

TEST_CASE("what ranks decide on the host is refused in a captured step") {
  if (carrier() != Carrier::nccl) return;
  for_each_world([](Communicator& comm) {
    const Tensor input = samples(0, 4, 6);
    const auto error = [&](const DdpOptions& options, int before, bool in_join) {
      Net net = seeded();
      Ddp ddp(comm, nn::parameters(net), {}, options);
      const auto step = [&] { ddp.forward([&] { return net(input).sum(); }).backward(); };
      for (int i = 0; i < before; ++i) step();
      DeviceGraph graph(default_device());
      std::string text;
      const auto captured = [&] { text = error_of([&] { graph.capture(step); }); };
      if (in_join)
        join(ddp, captured);
      else
        captured();
      CHECK_FALSE(graph.is_captured());
      return text;
    };
    CHECK(contains(error({}, 1, false), "do two steps as they are before one is captured"));
    CHECK(contains(error({.find_unused_parameters = true, .warn = [](const std::string&) {}}, 2, false),
                   "instead of find_unused_parameters"));
    CHECK(contains(error({}, 2, true), "join: ranks tell each other on the host"));
  });
}

TEST_CASE("what goes through the host's memory is refused in a captured step") {
  if (carrier() != Carrier::staged) return;
  for_each_world([](Communicator& comm) {
    const Tensor x = full({5}, 1);
    const int other = (comm.rank() + 1) % comm.size();
    const auto error = [](const std::function<void()>& f) {
      DeviceGraph graph(default_device());
      return error_of([&] { graph.capture(f); });
    };
    const std::string text = ": goes through the host's memory, for which a captured step does not wait";
    CHECK(contains(error([&] { comm.all_reduce(x).wait(); }), "all_reduce" + text));
    if (comm.size() > 1) CHECK(contains(error([&] { comm.send(x, other).wait(); }), "send" + text));
    comm.all_reduce(x).wait();
    CHECK(equal(x, full({5}, comm.size())));
  });
}

TEST_CASE("a rank that does not repeat its graph: a timeout that names the graph's first collective") {
  if (!has_two_gpus()) return;
  std::atomic<int> told = 0;
  const std::string error = error_on_two(
      [&](Communicator& comm) {
        const Tensor x = full({5}, 1);
        DeviceGraph graph(default_device());
        graph.capture([&] { comm.all_reduce(x, ReduceOp::mean).wait(); });
        graph.replay();
        synchronize(default_device());
        if (comm.rank() == 0) graph.replay();
        std::this_thread::sleep_for(1s);
        const std::string text = error_of([&] { graph.replay(); });
        if (text == "timeout after 0.5 s in all_reduce #0 f32[5] mean on rank 0 of 2, or what follows it in its graph")
          ++told;
        fail("mine");
      },
      500ms);
  CHECK(told == 2);
  CHECK(error.ends_with("mine"));
}

TEST_CASE("a graph outlives the group whose collectives it holds") {
  if (!has_two_gpus()) return;
  CHECK(error_on_two(
            [](Communicator& comm) {
              auto part = comm.split(0, comm.rank());
              const Tensor x = full({5}, 1);
              DeviceGraph graph(default_device());
              graph.capture([&] { part->all_reduce(x).wait(); });
              graph.replay();
              part.reset();
              CHECK(equal(x, full({5}, 2)));
            },
            60s) == "");
}
