// SPDX-License-Identifier: Apache-2.0
// What a trace says of a GPU. Without one the device is played by the host (tests/cuda/emulated), which does its work
// at random times.
#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/profiler.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/pinned.h>
#include <loom/tensor/raw.h>

#include "../trace_file.h"
#include "gpu.h"
#include "temporary_folder.h"

using namespace loom;
using gpu_test::has_gpu;
using loom::testing::TraceEvent;
using loom::testing::TraceFile;

namespace {

const Device gpu(Device::cuda);

TraceFile exported(Profiler& profiler) {
  const TemporaryFolder folder;
  profiler.export_chrome_trace(folder / "trace.json");
  return TraceFile(folder / "trace.json");
}

std::vector<TraceEvent> on_track(const TraceFile& trace, const std::string& name, const std::string& track) {
  std::vector<TraceEvent> out = trace.spans(name);
  std::erase_if(out, [&](const TraceEvent& e) { return e.track != track; });
  return out;
}

}  // namespace

TEST_CASE("profiler: an op on a GPU is a span of the host and one of the stream") {
  if (!has_gpu()) return;
  const Tensor x = ones({64, 64}, {f32, gpu});
  synchronize(gpu);
  Profiler profiler;
  const Tensor y = relu(matmul(x, x));
  const TraceFile trace = exported(profiler);
  CHECK(trace.json()["otherData"]["dropped"] == 0);
  const auto host = on_track(trace, "matmul", "main"), device = on_track(trace, "matmul", "cuda:0 compute");
  const auto next = on_track(trace, "relu", "cuda:0 compute");
  REQUIRE(host.size() == 1);
  REQUIRE(device.size() == 1);
  REQUIRE(next.size() == 1);
  CHECK(device[0].category == "op");
  CHECK(device[0].begin > host[0].begin - 1'000'000);  // two clocks
  CHECK(device[0].begin < host[0].end + 10'000'000'000);
  CHECK(next[0].begin >= device[0].end - 1000);
  CHECK(trace.is_nested());
  const auto& events = trace.events();
  const auto start = std::ranges::find(events, "s", &TraceEvent::phase);
  const auto finish = std::ranges::find(events, "f", &TraceEvent::phase);
  REQUIRE(start != events.end());
  REQUIRE(finish != events.end());
  CHECK(start->thread == host[0].thread);
  CHECK(finish->thread == device[0].thread);
  CHECK(start->id == finish->id);
}

TEST_CASE("profiler: backward nodes and copies on a GPU") {
  if (!has_gpu()) return;
  const Tensor x = ones({8, 8}).requires_grad_();
  Profiler profiler;
  const Tensor on_gpu = x.detach().to(gpu).requires_grad_();
  sum(matmul(on_gpu, on_gpu)).backward();
  const TraceFile trace = exported(profiler);
  CHECK(on_track(trace, "copy cpu to cuda:0", "cuda:0 compute").size() == 1);
  CHECK(trace.spans("copy cpu to cuda:0", "copy").at(0).args["bytes"] == 256);
  const auto node = on_track(trace, "matmul backward", "cuda:0 compute");
  REQUIRE(node.size() == 1);
  const auto products = on_track(trace, "matmul", "cuda:0 compute");
  CHECK(std::ranges::any_of(products, [&](const TraceEvent& e) { return node[0].holds(e); }));
}

TEST_CASE("profiler: each stream has a track of its own") {
  if (!has_gpu()) return;
  const Tensor x = pin_memory(ones({1 << 12}), gpu), a = ones({8}, {f32, gpu});
  Profiler profiler;
  const Stream copies = stream(gpu, Lane::copy);
  Tensor y;
  {
    const StreamScope scope(copies);
    y = raw::to_device(x, gpu, true);
  }
  const Tensor b = relu(a);
  copies.synchronize();
  const TraceFile trace = exported(profiler);
  CHECK(on_track(trace, "copy cpu to cuda:0", "cuda:0 copies").size() == 1);
  CHECK(on_track(trace, "relu", "cuda:0 compute").size() == 1);
}

TEST_CASE("profiler: a captured step is measured as a whole, at each replay") {
  if (!has_gpu()) return;
  const Tensor x = ones({16}, {f32, gpu}), y = zeros({16}, {f32, gpu});
  Profiler profiler;
  DeviceGraph graph(gpu);
  graph.capture([&] { y.copy_(relu(x + x)); });
  graph.replay();
  graph.replay();
  CHECK(equal(y.to(Device()), full({16}, 2.0)));
  const TraceFile trace = exported(profiler);
  CHECK(trace.json()["otherData"]["dropped"] == 0);
  CHECK(on_track(trace, "relu", "main").size() == 1);
  CHECK(on_track(trace, "relu", "cuda:0 compute").empty());
  CHECK(on_track(trace, "DeviceGraph.capture", "main").size() == 1);
  CHECK(on_track(trace, "DeviceGraph.replay", "main").size() == 2);
  CHECK(on_track(trace, "DeviceGraph.replay", "cuda:0 compute").size() == 2);
}

TEST_CASE("profiler: what a device does is looked at while more is asked of it") {
  if (!has_gpu()) return;
  const int ops = gpu_test::is_emulated() ? 3000 : 30'000;
  Tensor x = ones({4}, {f32, gpu});
  Profiler profiler;
  for (int i = 0; i < ops; ++i) x = relu(x);
  const TraceFile trace = exported(profiler);
  const auto spans = on_track(trace, "relu", "cuda:0 compute");
  CHECK(spans.size() == static_cast<size_t>(ops));
  const auto overlap = std::ranges::adjacent_find(spans, [](const TraceEvent& a, const TraceEvent& b) {
    return b.begin < a.end - 1000;  // to the microsecond
  });
  CHECK(overlap == spans.end());
}

TEST_CASE("profiler: spans of devices take their room too, and can be left out") {
  if (!has_gpu()) return;
  const Tensor x = ones({4}, {f32, gpu});
  Profiler few({.max_events = 10});
  for (int i = 0; i < 20; ++i) const Tensor y = relu(x);
  const TraceFile some = exported(few);
  CHECK(some.spans("relu").size() == 10);
  CHECK(some.json()["otherData"]["dropped"] == 30);
  Profiler host({.devices = false});
  const Tensor y = relu(x);
  CHECK(exported(host).spans("relu").size() == 1);
}

// tests/CMakeLists.txt looks whether the first device was left alone.
TEST_CASE("profiler: spans of the second GPU are measured by that one") {
  if (!has_gpu()) return;
  if (device_count(Device::cuda) < 2) {
    MESSAGE("skipped: one GPU");
    return;
  }
  const Device second(Device::cuda, 1);
  const Tensor x = ones({4}, {f32, second});
  Profiler profiler;
  const Tensor y = relu(x);
  size_t found = 0;  // by a thread that has chosen no device
  std::thread([&] { found = on_track(exported(profiler), "relu", "cuda:1 compute").size(); }).join();
  CHECK(found == 1);
}
