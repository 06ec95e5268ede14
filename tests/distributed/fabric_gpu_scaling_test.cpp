// SPDX-License-Identifier: Apache-2.0
// Loss scaling under Fabric where a GPU decides on steps: nobody waits for it, and what comes out is what the host's
// decisions give. Without a GPU the device is one that the host plays (tests/cuda/emulated).
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/sync_debug.h>
#include <loom/fabric/callback.h>
#include <loom/nn/optim/adagrad.h>
#include <loom/nn/optim/decay.h>
#include <loom/nn/optim/rmsprop.h>
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

// The model after `course`, which gets a function for one step by a batch, times a factor.
using Step = std::function<void(int, double)>;
struct Trained {
  Fabric& fabric;
  Net& net;
  optim::Optimizer& optimizer;
  State state;
  Step step;
};
using Course = std::function<void(Trained&)>;
template <class O, class Options>
std::vector<Tensor> after(const std::string& accelerator, const std::string& precision, const Options& options,
                          const Course& course) {
  std::vector<Tensor> out;
  on(accelerator,
     [&](Fabric& fabric) {
       Net net = seeded();
       O inner(nn::parameters(net), options);
       auto [model, optimizer] = fabric.setup(net, inner);
       const Step step = [&, &model = model, &optimizer = optimizer](int i, double factor) {
         optimizer.zero_grad();
         const Tensor x = fabric.to_device(rows(4 * i, 4, 6)), y = fabric.to_device(rows(4 * i, 4, 3));
         fabric.backward(mse_loss(model(x), y) * factor);
         optimizer.step();
       };
       Trained run{fabric, net, inner, State{{"model", model}, {"optimizer", optimizer}}, step};
       course(run);
       for (const Tensor& p : values(net)) out.push_back(p.to(Device::cpu));
     },
     {.precision = precision});
  return out;
}

template <class O, class Options>
void check_alike(const Options& options, const Course& course) {
  for (const char* const precision : {"32-true", "16-mixed", "16-true"}) {
    CAPTURE(precision);
    const auto host = after<O>("cpu", precision, options, course);
    CHECK(difference(after<O>("cuda", precision, options, course), host) < 2e-3);
  }
}
void check_optimizers(const Course& course) {
  check_alike<optim::SGD>(optim::SgdOptions{.lr = 0.05, .momentum = 0.9, .dampening = 0.1}, course);
  check_alike<optim::SGD>(optim::SgdOptions{.lr = 0.05}, course);
  check_alike<optim::AdamW>(optim::AdamWOptions{.lr = 0.01}, course);
  check_alike<optim::Adagrad>(optim::AdagradOptions{.lr = 0.05, .lr_decay = 0.1, .initial_accumulator_value = 0.5},
                              course);
  check_alike<optim::RMSprop>(optim::RmspropOptions{.lr = 0.01, .momentum = 0.5}, course);
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

TEST_CASE("a state that is loaded between scaled steps on a GPU goes on as on the host") {
  if (skipped()) return;
  const TemporaryFolder folder;
  for (const int before : {0, 3}) {  // 0: a state without masters, momenta or numbers of steps
    CAPTURE(before);
    check_optimizers([&](Trained& run) {
      for (int i = 0; i < before; ++i) run.step(i, 1);
      run.fabric.save(folder / "saved", run.state);
      const size_t keys = run.optimizer.state_dict().size();
      for (int i = 3; i < 6; ++i) run.step(i, 1);
      run.fabric.load(folder / "saved", run.state);
      CHECK(run.optimizer.state_dict().size() == keys);
      if (run.fabric.precision().needs_backward()) run.step(6, INFINITY);
      CHECK(run.optimizer.state_dict().size() == keys);
      for (int i = 7; i < 10; ++i) run.step(i, 1);
    });
  }
}

TEST_CASE("what is written to parameters before a scaled step that is skipped on a GPU stays") {
  if (skipped()) return;
  check_optimizers([&](Trained& run) {
    for (int i = 0; i < 3; ++i) run.step(i, 1);
    {
      const NoGrad off;
      for (const NamedTensor& p : nn::parameters(run.net)) p.tensor.clamp_(-0.05, 0.05);
    }
    if (run.fabric.precision().needs_backward()) run.step(3, INFINITY);
    run.step(4, 1);
  });
}

TEST_CASE("parameters that leave a GPU after scaled steps take their numbers of steps along") {
  if (skipped()) return;
  for (const bool made : {false, true}) {
    CAPTURE(made);
    check_optimizers([&](Trained& run) {
      for (int i = 0; i < 3; ++i) run.step(i, made || !run.fabric.precision().needs_backward() ? 1 : INFINITY);
      nn::to(run.net, Device(Device::cpu));
      for (int i = 0; i < 4; ++i) {
        for (const NamedTensor& p : nn::parameters(run.net))
          p.tensor.set_grad(full(p.tensor.shape(), i % 3 == 0 ? 1.0 : -0.1, p.tensor.dtype()));
        run.optimizer.set_half_factor({});  // these gradients have no scale
        run.optimizer.step();
      }
    });
  }
}

TEST_CASE("gradients from before setup are brought to the GPU and are true there") {
  if (skipped()) return;
  std::vector<std::vector<Tensor>> results;
  for (const char* const precision : {"32-true", "16-mixed"})
    on("cuda",
       [&](Fabric& fabric) {
         Net net = seeded();
         nn::to(net, Device(Device::cpu));
         optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
         sum(net(rows(0, 4, 6).to(Device()))).backward();
         auto [model, optimizer] = fabric.setup(net, sgd);
         CHECK(optimizer.step());
         std::vector<Tensor>& out = results.emplace_back();
         for (const Tensor& p : values(net)) out.push_back(p.to(Device::cpu));
       },
       {.precision = precision});
  CHECK(difference(results[0], results[1]) < 1e-5);
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
       const auto refused = [&](const std::function<void()>& work) {
         CHECK(error_of([&] { graph.capture(work); }) ==
               "loss scaling under Fabric cannot be captured in a graph, as each step replaces the scale; use "
               "optim::GradScaler, or a precision without scaling (bf16-mixed)");
         CHECK_FALSE(graph.is_captured());
       };
       refused([&, &model = model] { fabric.backward(sum(model(x))); });
       fabric.backward(sum(model(x)) * 0.001);
       refused(
           [&, &model = model, &optimizer = optimizer] { fabric.clip_gradients(model, optimizer, {.max_norm = 1}); });
       refused([&, &optimizer = optimizer] { optimizer.step(); });
       CHECK(optimizer.step());
     },
     {.precision = "16-mixed"});
}
