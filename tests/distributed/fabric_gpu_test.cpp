// SPDX-License-Identifier: Apache-2.0
// One line of options puts a program on a GPU: what Fabric brings there, what comes out, and which GPU it is.
#include <cstdlib>

#include <loom/fabric/placement.h>
#include <loom/nn/batch_norm.h>
#include <loom/nn/dropout.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/pinned.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

struct Normed {
  nn::Linear first{6, 12};
  nn::BatchNorm1d norm{12};
  nn::Dropout drop{0.25};
  nn::Linear second{12, 3};
  Tensor operator()(const Tensor& x) const { return second(drop(relu(norm(first(x))))); }
  LOOM_MEMBERS(first, norm, drop, second)
};

bool skipped() {
  if (device_count(Device::cuda) > 0) return false;
  MESSAGE("skipped: " << cuda_description());
  return true;
}

// The same in each precision: its losses and norms, and its values, may differ by so much from the CPU's.
const std::vector<std::pair<std::string, double>> precisions = {{"32-true", 1e-5},    {"64-true", 1e-12},
                                                                {"bf16-mixed", 0.05}, {"16-mixed", 0.01},
                                                                {"bf16-true", 0.05},  {"16-true", 0.01}};

// f with a Fabric of one rank; nothing but its options says where.
void on(const std::string& accelerator, const Loop& f, FabricOptions options = {}) {
  const auto self = self_communicator();
  options.accelerator = accelerator;
  Fabric fabric(over(*self, options));
  fabric.launch([&] { f(fabric); });
}

data::DataLoader<data::TensorDataset<2>> loader_of(int64_t count) {
  return data::DataLoader(data::TensorDataset(rows(0, count, 6), rows(500, count, 3)),
                          {.batch_size = 4, .shuffle = true, .num_workers = 1, .seed = 3});
}

// The losses of an epoch, the norms of its gradients, and the model afterwards, on the host.
struct Outcome {
  std::vector<double> losses, norms;
  std::vector<Tensor> model;
};
Outcome trained(Fabric& fabric, int64_t samples = 20) {
  Outcome out;
  seed_everything(5);
  Normed net = seeded<Normed>();
  // Not Adam: batch norm leaves the first bias no gradient but rounding, which Adam makes a step of.
  optim::SGD sgd(nn::parameters(net), {.lr = 0.05, .momentum = 0.9});
  auto [model, optimizer] = fabric.setup(net, sgd);
  auto loader = fabric.setup_dataloaders(loader_of(samples));
  for (auto [x, y] : loader) {
    CHECK(x.device() == fabric.device());
    optimizer.zero_grad();
    const Tensor loss = mse_loss(model(x), y.to(model(x).dtype()));
    fabric.backward(loss);
    out.norms.push_back(fabric.clip_gradients(model, optimizer, {.max_norm = 0.5}).item<double>());
    optimizer.step();
    out.losses.push_back(loss.item<double>());
  }
  for (const NamedTensor& p : nn::parameters(net)) CHECK(alike(fabric, {p.tensor.detach()}));
  for (const Tensor& x : values(net)) out.model.push_back(x.to(Device::cpu));
  return out;
}

double worst(const std::vector<double>& a, const std::vector<double>& b) {
  double out = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    out = std::max(out, std::abs(a[i] - b[i]) / (1 + std::abs(b[i])));
  return out;
}

void check_near(const Outcome& gpu, const Outcome& host, double tolerance) {
  CHECK(worst(gpu.losses, host.losses) <= tolerance);
  CHECK(worst(gpu.norms, host.norms) <= tolerance * 2);
  CHECK(difference(gpu.model, host.model) <= tolerance * 10);
}

}  // namespace

TEST_CASE("training on a GPU is training on the CPU, in every precision") {
  if (skipped()) return;
  for (const auto& [precision, tolerance] : precisions) {
    CAPTURE(precision);
    Outcome host, gpu;
    on("cpu", [&](Fabric& fabric) { host = trained(fabric); }, {.precision = precision});
    on("cuda", [&](Fabric& fabric) { gpu = trained(fabric); }, {.precision = precision});
    CHECK(gpu.losses.size() == 5);
    check_near(gpu, host, tolerance);
  }
}

TEST_CASE("ranks with a GPU each train as ranks on the CPU, and stay alike bit for bit, in every precision") {
  if (skipped()) return;
  for_each_world([](Communicator& ranks) {
    Context here = context();
    here.default_device = Device::cpu;
    const ContextGuard guard(here);
    for (const auto& [precision, tolerance] : precisions) {
      CAPTURE(precision);
      Outcome outcomes[2];
      for (const char* const accelerator : {"cpu", "cuda"}) {
        Fabric fabric(over(ranks, {.accelerator = accelerator, .strategy = "ddp", .precision = precision}));
        fabric.launch([&] {
          Outcome& out = outcomes[fabric.device().kind == Device::cuda ? 1 : 0];
          out = trained(fabric, 32);
          CHECK(std::ssize(out.losses) == 8 / fabric.world_size());
        });
      }
      check_near(outcomes[1], outcomes[0], tolerance);
    }
  });
}

namespace {

struct Wide {
  nn::Linear first{16, 32}, second{32, 16};
  Tensor operator()(const Tensor& x) const { return second(relu(first(x))); }
  LOOM_MEMBERS(first, second)
};

}  // namespace

TEST_CASE("fp8-mixed: ranks round with the same factors, whatever each has seen; a checkpoint of one is that of all") {
  if (skipped() || !fp8_obstacle(Device::cuda).empty()) return;
  for_each_world([](Communicator& ranks) {
    Fabric fabric(over(ranks, {.accelerator = "cuda", .strategy = "ddp", .precision = "fp8-mixed"}));
    fabric.launch([&] {
      Wide net = seeded<Wide>();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      const int64_t rank = fabric.global_rank();
      const auto train = [&, &model = model, &optimizer = optimizer](int64_t steps) {
        for (int64_t step = 0; step < steps; ++step) {
          const double scale = static_cast<double>(1 + 5 * rank * step);
          const Tensor x = fabric.to_device(rows(32 * step + 7 * rank, 16, 16)) * scale;
          optimizer.zero_grad();
          fabric.backward(mse_loss(model(x), x));
          optimizer.step();
        }
      };
      const auto check_alike = [&] {
        const StateDict noted = fabric.precision().state_dict();
        CHECK(noted.tensors.size() == 6);
        for (const auto& [name, state] : noted.tensors) CHECK(alike(fabric, {state}));
        CHECK(alike(fabric, values(net)));
      };
      for (int64_t steps = 1; steps <= 3; ++steps) {
        train(steps);
        check_alike();
      }
      fabric.join(model, [&] { train(1 + rank); });
      check_alike();
    });
  });
}

TEST_CASE("a step through Fabric in a graph, over ranks, is the step as it is, bit for bit") {
  if (skipped() || carrier() == Carrier::staged) return;
  for_each_world([](Communicator& ranks) {
    for (const char* const precision : {"32-true", "bf16-mixed", "fp8-mixed"}) {
      if (precision == std::string("fp8-mixed") && !fp8_obstacle(Device::cuda).empty()) continue;
      CAPTURE(precision);
      std::vector<Tensor> ends[2];
      for (const bool as_graph : {false, true}) {
        Fabric fabric(over(ranks, {.accelerator = "cuda", .strategy = "ddp", .precision = precision}));
        fabric.launch([&] {
          Wide net = seeded<Wide>();
          optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
          auto [model, optimizer] = fabric.setup(net, adamw);
          const Tensor input = zeros({16, 16}, {f32, fabric.device()});
          DeviceGraph graph(as_graph ? fabric.device() : Device());
          for (int step = 0; step < 8; ++step) {
            input.copy_(fabric.to_device(rows(32 * step + 7 * fabric.global_rank(), 16, 16)));
            graph.run([&, &model = model, &optimizer = optimizer] {
              fabric.backward(mse_loss(model(input), input));
              fabric.clip_gradients(model, optimizer, {.max_norm = 0.5});
              optimizer.step();
              optimizer.zero_grad();
            });
          }
          CHECK(fabric.global_step() == 8);
          CHECK(graph.is_captured() == as_graph);
          CHECK(alike(fabric, values(net)));
          ends[as_graph ? 1 : 0] = values(net);
        });
      }
      CHECK(equal_all(ends[0], ends[1]));
    }
  });
}

TEST_CASE("a graph that outlives its Fabric is not repeated") {
  if (skipped()) return;
  const auto self = self_communicator();
  Net net = seeded();
  optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
  auto fabric = std::make_unique<Fabric>(over(*self, {.accelerator = "cuda"}));
  DeviceGraph graph(Device::cuda);
  fabric->launch([&] {
    auto [model, optimizer] = fabric->setup(net, sgd);
    const Tensor x = fabric->to_device(rows(0, 4, 6));
    const auto step = [&, &model = model, &optimizer = optimizer] {
      fabric->backward(sum(model(x)));
      optimizer.step();
      optimizer.zero_grad();
    };
    for (int i = 0; i < 5; ++i) graph.run(step);
    CHECK(fabric->global_step() == 5);
  });
  fabric.reset();
  CHECK(error_of([&] { graph.replay(); }) == "DeviceGraph: a Fabric whose step was captured is gone");
  CHECK(sgd.steps_asked() == 5);
}

TEST_CASE("every name of the accelerator gives the rank's GPU, and setup brings everything there") {
  if (skipped()) return;
  for (const char* const name : {"cuda", "gpu", "auto"}) {
    const auto self = self_communicator();
    FabricOptions options{.accelerator = name};
    options.plugins.communicator = std::shared_ptr<Communicator>(std::shared_ptr<void>(), self.get());
    Fabric fabric(options);
    fabric.launch([&] {
      CHECK(fabric.device() == Device(Device::cuda, fabric.local_rank()));
      Normed net = seeded<Normed>();
      optim::AdamW stepped(nn::parameters(net), {.lr = 0.01});
      sum(net(rows(0, 4, 6))).backward();
      stepped.step();  // its state is on the CPU
      auto [model, optimizer] = fabric.setup(net, stepped);
      for (const NamedTensor& t : nn::state_dict(net)) CHECK(t.tensor.device() == fabric.device());
      for (const NamedTensor& p : nn::parameters(net)) CHECK(p.tensor.grad().device() == fabric.device());
      optimizer.zero_grad();
      fabric.backward(sum(model(fabric.to_device(rows(0, 4, 6)))));
      CHECK(optimizer.step());
      for (const auto& [key, x] : stepped.state_dict())
        if (key.starts_with("exp_avg")) CHECK(x.device() == fabric.device());
    });
  }
}

TEST_CASE("a checkpoint goes on where it was not written") {
  if (skipped()) return;
  const TemporaryFolder folder;
  const auto steps = [&](Fabric& fabric, int count, const std::string& from, const std::string& to) {
    seed_everything(5);
    Normed net = seeded<Normed>();
    optim::SGD sgd(nn::parameters(net), {.lr = 0.05, .momentum = 0.9});
    auto [model, optimizer] = fabric.setup(net, sgd);
    auto loader = fabric.setup_dataloaders(loader_of(40));
    const State state = {{"model", model}, {"optimizer", optimizer}};
    if (!from.empty()) fabric.load(folder / from, state);
    for (auto [x, y] : loader) {
      optimizer.zero_grad();
      fabric.backward(mse_loss(model(x), y));
      optimizer.step();
      if (--count == 0) break;
    }
    fabric.save(folder / to, state);
    std::vector<Tensor> out;
    for (const Tensor& x : values(net)) out.push_back(x.to(Device::cpu));
    return out;
  };
  std::vector<Tensor> whole, crossed, back;
  on("cpu", [&](Fabric& fabric) {
    whole = steps(fabric, 6, "", "whole");
    steps(fabric, 3, "", "half");
  });
  on("cuda", [&](Fabric& fabric) {
    crossed = steps(fabric, 3, "half", "crossed");
    steps(fabric, 3, "", "half of a GPU");
  });
  on("cpu", [&](Fabric& fabric) { back = steps(fabric, 3, "half of a GPU", "back"); });
  CHECK(difference(crossed, whole) < 1e-5);
  CHECK(difference(back, whole) < 1e-5);
}

TEST_CASE("what is made, reduced, logged and converted on a GPU") {
  if (skipped()) return;
  struct Kept : Logger {
    std::vector<double> losses;
    void log_metrics(const Metrics& metrics, std::optional<int64_t>) override { losses.push_back(metrics.at("loss")); }
  };
  const auto kept = std::make_shared<Kept>();
  on("cuda",
     [&](Fabric& fabric) {
       {
         const auto scope = fabric.init_module();
         const Normed net;
         for (const NamedTensor& t : nn::state_dict(net)) CHECK(t.tensor.device() == fabric.device());
         for (const NamedTensor& p : nn::parameters(net)) CHECK(p.tensor.dtype() == bf16);
       }
       {
         const auto scope = fabric.init_tensor();
         CHECK(zeros({2}).device() == fabric.device());
       }
       const Tensor x = fabric.to_device(rows(0, 2, 3));
       for (const Tensor& y : {fabric.all_reduce(x), fabric.all_gather(x)[0], fabric.broadcast(x)}) {
         CHECK(y.device() == fabric.device());
         CHECK(equal(y, x));
       }
       fabric.log("loss", sum(x * 0.0) + 2.0);
       CHECK(kept->losses == std::vector<double>{2});
     },
     {.precision = "bf16-true", .loggers = {kept}});
  std::vector<Tensor> draws;
  for (const char* const accelerator : {"cpu", "cuda"})
    on(accelerator, [&](Fabric& fabric) {
      seed_everything(9);
      draws.push_back(rand({5, 5}, {f32, fabric.device()}).to(Device::cpu));
    });
  CHECK(equal(draws[0], draws[1]));
}

TEST_CASE("loaders: not ahead where that is not wanted, on the host where they are to stay") {
  if (skipped()) return;
  on("cuda", [](Fabric& fabric) {
    auto plain = fabric.setup_dataloaders(loader_of(8), {.prefetch = false});
    auto ahead = fabric.setup_dataloaders(loader_of(8));
    auto host = fabric.setup_dataloaders(loader_of(8), {.move_to_device = false});
    std::vector<std::vector<float>> seen[3];
    for (auto [x, y] : plain) seen[0].push_back(x.to_vector<float>());
    for (auto [x, y] : ahead) seen[1].push_back(x.to_vector<float>());
    for (auto [x, y] : host) {
      CHECK(x.device() == Device(Device::cpu));
      CHECK_FALSE(is_pinned(x));
      seen[2].push_back(x.to_vector<float>());
    }
    CHECK(seen[0] == seen[2]);
    CHECK(seen[1] == seen[2]);
  });
}

TEST_CASE("ranks take the GPUs of their node one after the other, or the one that each sees for itself") {
  const char* const given = std::getenv("LOOM_SHARE_GPUS");
  const std::string kept = given != nullptr ? given : "";
  unsetenv("LOOM_SHARE_GPUS");
  const std::vector<std::string> all = {"a", "b", "c", "d"};
  for (int r = 0; r < 4; ++r) CHECK(gpu_of_rank("cuda", r, {all, all, all, all}) == r);
  for (int r = 0; r < 3; ++r) CHECK(gpu_of_rank("cuda", r, {{"a"}, {"b"}, {"c"}}) == 0);
  CHECK(gpu_of_rank("cuda", 0, {{"a"}, {"a"}}) == 0);
  CHECK(error_of([] {
          gpu_of_rank("cuda", 1, {{"a"}, {"a"}});
        }) ==
        "accelerator 'cuda': local rank 1 has no GPU, this machine has 1 and 2 ranks; start 1 rank, or use accelerator "
        "'cpu'");
  CHECK(error_of([&] {
          gpu_of_rank("gpu", 4, {all, all, all, all, all});
        }) ==
        "accelerator 'gpu': local rank 4 has no GPU, this machine has 4 and 5 ranks; start 4 ranks, or use accelerator "
        "'cpu'");
  setenv("LOOM_SHARE_GPUS", "1", 1);
  CHECK(gpu_of_rank("cuda", 1, {{"a"}, {"a"}}) == 0);
  CHECK(gpu_of_rank("gpu", 5, {all, all, all, all, all, all}) == 1);
  CHECK(error_of([] { gpu_of_rank("cuda", 0, {{}}); }) ==
        str("accelerator 'cuda': ", cuda_description(), "; use 'cpu' or 'auto'"));
  setenv("LOOM_SHARE_GPUS", kept.c_str(), 1);
}
