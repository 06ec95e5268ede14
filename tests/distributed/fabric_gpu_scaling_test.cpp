// SPDX-License-Identifier: Apache-2.0
// Loss scaling under Fabric where a GPU decides on steps: nobody waits for it, and what comes out is what the host's
// decisions give. Without a GPU the device is one that the host plays (tests/cuda/emulated).
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/sync_debug.h>
#include <loom/fabric/callback.h>
#include <loom/nn/optim/decay.h>
#include <loom/tensor/device_graph.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

bool skipped() {
  if (device_count(Device::cuda) > 0) return false;
  MESSAGE("skipped: " << cuda_description());
  return true;
}

void on(const std::string& accelerator, const Loop& f, FabricOptions options = {}) {
  const auto self = self_communicator();
  options.accelerator = accelerator;
  Fabric fabric(over(*self, options));
  fabric.launch([&] { f(fabric); });
}

struct Outcome {
  std::vector<Tensor> model;
  double scale = 0;
  int64_t steps = 0;
  optim::StepCounts counts;
};

// Sixteen backward passes of a small net, some of which overflow; the host asks for nothing before the end.
Outcome trained(Fabric& fabric, const ClipOptions& clip, int accumulate) {
  seed_everything(5);
  Net net = seeded();
  optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
  auto [model, optimizer] = fabric.setup(net, adamw);
  std::vector<Tensor> x, y, factor;
  for (int64_t i = 0; i < 16; ++i) {
    x.push_back(fabric.to_device(rows(4 * i, 4, 6)));
    y.push_back(fabric.to_device(rows(4 * i, 4, 3)));
    factor.push_back(fabric.to_device(full({}, i == 0 || i == 9 || i == 10 ? INFINITY : 1.0)));
  }
  {
    const SyncDebugScope waits(SyncDebugMode::error);
    for (size_t i = 0; i < 16; ++i) {
      fabric.backward(mse_loss(model(x[i]), y[i]) * factor[i]);
      if ((i + 1) % accumulate != 0) continue;
      if (clip.clip_val || clip.max_norm) fabric.clip_gradients(model, optimizer, clip);
      optimizer.step();
      optimizer.zero_grad();
    }
  }
  Outcome out{.scale = fabric.precision().loss_scale(), .steps = fabric.global_step(), .counts = adamw.step_counts()};
  for (const Tensor& p : values(net)) out.model.push_back(p.to(Device::cpu));
  return out;
}

}  // namespace

TEST_CASE("scaled steps on a GPU: the host waits for none, and they are the host's") {
  if (skipped()) return;
  const std::vector<ClipOptions> clips = {
      {}, {.max_norm = 0.05}, {.max_norm = 0.05, .error_if_nonfinite = false}, {.clip_val = 0.01}};
  for (const char* const precision : {"16-mixed", "16-true"})
    for (size_t clip = 0; clip < clips.size(); ++clip)
      for (const int accumulate : {1, 2}) {
        CAPTURE(precision);
        CAPTURE(clip);
        CAPTURE(accumulate);
        Outcome host, gpu;
        on("cpu", [&](Fabric& f) { host = trained(f, clips[clip], accumulate); }, {.precision = precision});
        on("cuda", [&](Fabric& f) { gpu = trained(f, clips[clip], accumulate); }, {.precision = precision});
        CHECK(host.counts.skipped >= 3);
        CHECK(gpu.counts.skipped == host.counts.skipped);
        CHECK(gpu.counts.taken == host.counts.taken);
        CHECK(gpu.steps == host.steps);
        CHECK(gpu.steps == gpu.counts.taken);
        CHECK(gpu.scale == host.scale);
        CHECK(difference(gpu.model, host.model) < 2e-3);
      }
}

TEST_CASE("what asks about a scaled step on a GPU waits for it: results, callbacks, schedulers, checkpoints") {
  if (skipped()) return;
  struct Counting final : Callback {
    int64_t steps = 0;
    void on_after_optimizer_step(Fabric& fabric) override { CHECK(fabric.global_step() == ++steps); }
  };
  const TemporaryFolder folder;
  for (const bool watched : {false, true}) {
    CAPTURE(watched);
    const auto counting = std::make_shared<Counting>();
    FabricOptions options{.precision = "16-mixed"};
    if (watched) options.callbacks = {counting};
    const auto steps = [&](Fabric& fabric, const auto& loop) {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      optim::StepLR schedule(sgd, 1, 0.5);
      auto [model, optimizer] = fabric.setup(net, sgd);
      auto step = [&, model = model, optimizer = optimizer](double factor) mutable {
        optimizer.zero_grad();
        fabric.backward(sum(model(fabric.to_device(rows(0, 4, 6)))) * factor);
        auto made = optimizer.step();
        schedule.step();
        return made;
      };
      loop(step, State{{"model", model}, {"optimizer", optimizer}});
      CHECK(sgd.param_groups()[0].lr() == 0.01 * std::pow(0.5, 2));
    };
    on(
        "cuda",
        [&](Fabric& fabric) {
          steps(fabric, [&](auto& step, const State& state) {
            CHECK_FALSE(step(INFINITY));
            CHECK(step(0.001));
            step(INFINITY);
            step(0.001);
            fabric.save(folder / "two", state);
            CHECK(fabric.global_step() == 2);
          });
        },
        options);
    CHECK(counting->steps == (watched ? 2 : 0));
    on("cuda",
       [&](Fabric& fabric) {
         steps(fabric, [&](auto& step, const State& state) {
           step(0.001);
           fabric.load(folder / "two", state);
           CHECK(fabric.global_step() == 2);
         });
       },
       {.precision = "16-mixed"});
  }
}

TEST_CASE("a scaled step under Fabric cannot be captured") {
  if (skipped()) return;
  on("cuda",
     [](Fabric& fabric) {
       Net net = seeded();
       optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
       auto [model, optimizer] = fabric.setup(net, sgd);
       const Tensor x = fabric.to_device(rows(0, 4, 6));
       DeviceGraph graph(fabric.device());
       CHECK(error_of([&, model = model] { graph.capture([&] { fabric.backward(sum(model(x))); }); }) ==
             "loss scaling under Fabric cannot be captured in a graph, as each step replaces the scale; use "
             "optim::GradScaler, or a precision without scaling (bf16-mixed)");
       CHECK_FALSE(graph.is_captured());
     },
     {.precision = "16-mixed"});
}
