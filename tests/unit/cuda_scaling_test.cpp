// SPDX-License-Identifier: Apache-2.0
// Loss scaling where the device decides on steps: the same scales, steps and parameters as where the host does. Without
// a GPU the device is one that the host plays (tests/cuda/emulated).
#include <limits>

#include <doctest/doctest.h>

#include <loom/accelerators/cuda.h>
#include <loom/autograd/ops.h>
#include <loom/nn/optim/grad_scaler.h>
#include <loom/nn/optim/optim.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>

#include "../error_of.h"

using namespace loom;

namespace {

const Device gpu(Device::cuda);

bool has_device() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

enum class Way : uint8_t { host, device, graph };

// Two parameters, of which one joins later; the gradients of some steps are not finite.
template <class Optimizer, class Options>
optim::State train(Way way, const Options& options, DType dtype = f32,
                   optim::HalfUpdate half = optim::HalfUpdate::master) {
  constexpr int steps = 14, warm_up = 4;
  const Device device = way == Way::host ? Device() : gpu;
  const Tensor x = (arange(0, 10, 1, f32) * 0.1).to(dtype).to(device).requires_grad_();
  const Tensor y = ones({6}, f32).to(dtype).to(device).requires_grad_();
  Optimizer optimizer(std::vector<NamedTensor>{{"x", x}, {"y", y}}, options);
  optimizer.set_half_update(half, 5);
  optim::GradScaler scaler({.init_scale = 1024, .growth_interval = 3});
  const Tensor factor = empty({}, {f32, device});
  DeviceGraph graph(way == Way::graph ? gpu : Device(), {.warm_up = warm_up});
  for (int i = 0; i < steps; ++i) {
    const bool overflow = i == 0 || i == 5 || i == 6 || i == 11;
    factor.fill_(overflow ? std::numeric_limits<double>::infinity() : 1 + 0.25 * i);
    graph.run([&] {
      optimizer.zero_grad();
      Tensor loss = (x * factor).sum();
      if (i > 1) loss = loss + (y * y * factor).sum();
      scaler.scale(loss).backward();
      scaler.step(optimizer);
      scaler.update();
    });
  }
  CHECK(optimizer.step_counts().taken == steps - 4);
  CHECK(optimizer.step_counts().skipped == 4);
  CHECK(optimizer.steps_asked() == steps);
  optim::State out = optimizer.state_dict();
  for (const auto& [name, value] : scaler.state_dict()) out["scaler." + name] = value;
  out["x"] = x.detach();
  out["y"] = y.detach();
  for (auto& [name, value] : out) value = value.to(Device());
  return out;
}

void check_same(const optim::State& a, const optim::State& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, value] : a) {
    CAPTURE(name);
    REQUIRE(b.contains(name));
    CHECK(equal(value, b.at(name)));
  }
}

template <class Optimizer, class Options, class... Half>
void check_ways(const Options& options, const Half&... half) {
  const optim::State host = train<Optimizer>(Way::host, options, half...);
  check_same(host, train<Optimizer>(Way::device, options, half...));
  check_same(host, train<Optimizer>(Way::graph, options, half...));
}

}  // namespace

TEST_CASE("the device skips steps whose gradients are not finite, and changes the scale, as the host does") {
  if (!has_device()) return;
  check_ways<optim::AdamW>(optim::AdamWOptions{.lr = 0.1});
  check_ways<optim::SGD>(optim::SgdOptions{.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
  check_ways<optim::Adagrad>(optim::AdagradOptions{.lr = 0.1, .lr_decay = 0.1});
  check_ways<optim::RMSprop>(optim::RmspropOptions{.lr = 0.1});
}

TEST_CASE("parameters of 16 bits: masters and random roundings stay where they are in a step that is skipped") {
  if (!has_device()) return;
  const optim::AdamWOptions options{.lr = 0.1};
  check_ways<optim::AdamW>(options, bf16);
  check_ways<optim::AdamW>(options, bf16, optim::HalfUpdate::stochastic);
}

TEST_CASE("what step() returns is the device's answer") {
  if (!has_device()) return;
  const Tensor x = ones({3}, {f32, gpu}).requires_grad_();
  optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.5});
  optim::GradScaler scaler({.init_scale = 4});
  for (const bool overflow : {false, true}) {
    sgd.zero_grad();
    scaler.scale((x * (overflow ? std::numeric_limits<double>::infinity() : 1.0)).sum()).backward();
    CHECK(scaler.step(sgd) == !overflow);
    scaler.update();
  }
  CHECK(scaler.get_scale() == 2);
  CHECK(equal(x.detach().to(Device()), full({3}, 0.5)));
}

TEST_CASE("a loaded state brings its options: tensors that these lack are gone, and what is saved then can be loaded") {
  if (!has_device()) return;
  const auto stepped = [](optim::AdamW& adam, const Tensor& x) {
    optim::GradScaler scaler({.init_scale = 4});
    scaler.scale((x * x).sum()).backward();
    scaler.step(adam);
    adam.zero_grad();
  };
  const auto parameter = [] { return ones({3}, {f32, gpu}).requires_grad_(); };
  const Tensor x = parameter(), y = parameter();
  optim::AdamW with(std::vector<NamedTensor>{{"x", x}}, {.amsgrad = true}),
      without(std::vector<NamedTensor>{{"x", y}}, {});
  stepped(with, x);
  stepped(without, y);
  with.load_state_dict(without.state_dict());
  stepped(with, x);
  const optim::State saved = with.state_dict();
  CHECK(saved.size() == without.state_dict().size());
  CHECK_NOTHROW(with.check_state_dict(saved));
}

TEST_CASE("options that are loaded and loaded back leave a captured step what it was") {
  if (!has_device()) return;
  const auto train = [](Device device) {
    const Tensor x = ones({3}, {f32, device}).requires_grad_();
    optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.1, .momentum = 0.9});
    DeviceGraph graph(device, {.warm_up = 1});
    const auto step = [&] {
      graph.run([&] {
        (x * x).sum().backward();
        sgd.step();
        sgd.zero_grad();
      });
    };
    for (int i = 0; i < 3; ++i) step();
    optim::State saved;
    for (const auto& [name, value] : sgd.state_dict()) saved[name] = value.clone();
    const Tensor y = ones({3}, {f32, device}).requires_grad_();
    sgd.load_state_dict(optim::SGD(std::vector<NamedTensor>{{"x", y}}, {.lr = 0.1}).state_dict());
    const Tensor others = full({3}, 7, {f32, device});  // would lie where the momentum was, were that gone
    sgd.load_state_dict(saved);
    for (int i = 0; i < 3; ++i) step();
    CHECK(equal(others.to(Device()), full({3}, 7)));
    return x.detach().to(Device());
  };
  const Tensor host = train(Device());
  CHECK((train(gpu) - host).abs().max().item<double>() < 1e-6);
}

TEST_CASE(
    "masters of steps that the device has not counted are saved when it begins to count with a skip or a capture") {
  if (!has_device()) return;
  for (const bool captured : {false, true})
    for (const double momentum : {0.0, 0.9}) {
      CAPTURE(captured);
      CAPTURE(momentum);
      const Tensor x = ones({4}).to(bf16).to(gpu).requires_grad_();
      optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 1e-4, .momentum = momentum});
      const Tensor one = ones({4}, {bf16, gpu});
      x.set_grad(one);
      sgd.step();
      const float master = sgd.state_dict().at("master.x").to(Device())[0].item<float>();
      DeviceGraph graph(gpu);
      if (captured)
        graph.capture([&] { sgd.step(); });
      else
        sgd.step_unless(ones({}, {f32, gpu}));
      const optim::State saved = sgd.state_dict();
      REQUIRE(saved.contains("master.x"));
      CHECK(saved.at("master.x").to(Device())[0].item<float>() == master);
      CHECK(saved.contains("momentum_buffer.x") == (momentum != 0));
    }
}

TEST_CASE("momentum that comes later, with dampening, begins as on the host") {
  if (!has_device()) return;
  const auto train = [](Device device) {
    const Tensor x = ones({4}, {f32, device}).requires_grad_();
    optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.1, .dampening = 0.5});
    for (const bool skipped : {false, false, true, false, true, false}) {
      x.set_grad(ones({4}, {f32, device}));
      sgd.step_unless(full({}, skipped, {f32, device}));
      sgd.param_groups()[0].options["momentum"] = sgd.step_counts().taken >= 2 ? 0.9 : 0.0;
    }
    return x.detach().to(Device());
  };
  CHECK((train(gpu) - train(Device())).abs().max().item<double>() < 1e-6);
}

TEST_CASE("momentum that is loaded away and comes back by replays begins and goes on as on the host") {
  if (!has_device()) return;
  for (const bool plain : {false, true}) {
    CAPTURE(plain);
    const auto train = [&](Device device) {
      const Tensor x = ones({4}, {f32, device}).requires_grad_();
      optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
      optim::State fresh = sgd.state_dict();
      fresh["groups.0.momentum"] = full({}, 0, f64);
      x.set_grad(ones({4}, {f32, device}));
      DeviceGraph graph(device, {.warm_up = 1});
      const auto step = [&] { sgd.step(); };
      for (int i = 0; i < 3; ++i) graph.run(step);
      sgd.load_state_dict(fresh);
      if (plain) sgd.step();
      sgd.param_groups()[0].options["momentum"] = 0.9;
      for (int i = 0; i < 2; ++i) graph.run(step);
      sgd.step();
      return x.detach().to(Device());
    };
    CHECK((train(gpu) - train(Device())).abs().max().item<double>() < 1e-6);
  }
}

TEST_CASE("a maximum that is loaded away twice begins again when replays ask for it") {
  if (!has_device()) return;
  const auto train = [](Device device) {
    const Tensor x = ones({4}, {f32, device}).requires_grad_(), y = ones({4}, {f32, device}).requires_grad_();
    optim::AdamW adam(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.1, .amsgrad = true}),
        plain(std::vector<NamedTensor>{{"x", y}}, {.lr = 0.1});
    y.set_grad(ones({4}, {f32, device}));
    plain.step();
    const optim::State saved = plain.state_dict();
    x.set_grad(full({4}, 50, {f32, device}));  // what is forgotten would keep the steps small
    DeviceGraph graph(device, {.warm_up = 1});
    const auto steps = [&] {
      for (int i = 0; i < 3; ++i) graph.run([&] { adam.step(); });
    };
    steps();
    for (int i = 0; i < 2; ++i) {
      adam.load_state_dict(saved);
      adam.param_groups()[0].options["amsgrad"] = 1;
      if (i == 1) x.grad().fill_(1);
      steps();
    }
    return x.detach().to(Device());
  };
  CHECK((train(gpu) - train(Device())).abs().max().item<double>() < 1e-6);
}

TEST_CASE("another way to step parameters of 16 bits needs another capture") {
  if (!has_device()) return;
  const Tensor x = ones({4}).to(bf16).to(gpu).requires_grad_();
  optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.1});
  x.set_grad(ones({4}, {bf16, gpu}));
  DeviceGraph graph(gpu, {.warm_up = 1});
  const auto step = [&] { sgd.step(); };
  for (int i = 0; i < 3; ++i) graph.run(step);
  for (const auto how : {optim::HalfUpdate::stochastic, optim::HalfUpdate::master}) {
    sgd.set_half_update(how, 3);
    CHECK(testing::error_of([&] { graph.run(step); }) ==
          "SGD: set_half_update was called since the step was captured; capture it again");
  }
}

TEST_CASE("a loaded state goes to where the captured step finds it") {
  if (!has_device()) return;
  const Tensor x = ones({3}, {f32, gpu}).requires_grad_();
  optim::AdamW adam(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.5});
  DeviceGraph graph(gpu, {.warm_up = 0});
  const auto step = [&] {
    graph.run([&] {
      (x * x).sum().backward();
      adam.step();
      adam.zero_grad();
    });
    return x.detach().to(Device());
  };
  (void)step();
  optim::State saved;
  for (const auto& [name, value] : adam.state_dict()) saved[name] = value.clone();
  const Tensor values = x.detach().clone();
  const Tensor second = step();
  (void)step();
  adam.load_state_dict(saved);
  {
    const NoGrad off;
    x.copy_(values);
  }
  CHECK(equal(step(), second));
  adam.load_state_dict(adam.state_dict());  // of itself: nothing changes
  CHECK(adam.state_dict().at("step.x").item<int64_t>() == 2);
}
