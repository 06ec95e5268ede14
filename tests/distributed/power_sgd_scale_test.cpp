// SPDX-License-Identifier: Apache-2.0
// PowerSGD's errors under a loss scale that the program tells the hook itself, or that Fabric has. Powers of two are
// exact, so what a resumed or joined run gives is what the whole one does in 32-true, to the bit.
#include <algorithm>

#include <loom/distributed/default_hooks.h>
#include <loom/distributed/join.h>
#include <loom/distributed/power_sgd.h>
#include <loom/fabric/strategies/ddp.h>

#include "fabric_scaling.h"

using namespace fabric_test;

namespace {

std::shared_ptr<PowerSgdHook> power_sgd() {
  return std::make_shared<PowerSgdHook>(PowerSgdOptions{.start_powerSGD_iter = 1, .min_compression_rate = 1});
}

Tensor batch_loss(const Communicator& ranks, const auto& model, int i) {
  return mse_loss(model(rows(50 * i + 4 * ranks.rank(), 4, 6)), rows(4 * i, 4, 3));
}

// When the program tells the hook its scaler's scale.
enum class Tells { before_backward, after_update, once };

// A loop without Fabric, with a GradScaler of its own.
struct OwnLoop {
  OwnLoop(Communicator& ranks, const optim::GradScalerOptions& options, Tells tells)
      : ranks(ranks), scaler(options), tells(tells), ddp(ranks, nn::parameters(net), {}, {.comm_hook = hook}) {
    tell();
  }
  void tell() {
    if (scaler.is_enabled()) hook->set_gradient_scale(full({}, scaler.get_scale(), f64));
  }
  void step(int i) {
    sgd.zero_grad();
    if (tells == Tells::before_backward) tell();
    scaler.scale(ddp.forward([&] { return batch_loss(ranks, net, i); })).backward();
    scaler.step(sgd);
    scaler.update();
    if (tells == Tells::after_update) tell();
  }
  void backward(int i) {
    sgd.zero_grad();
    ddp.forward([&] { return batch_loss(ranks, net, i); }).backward();
  }
  void go_on_from(const OwnLoop& other) {
    const NoGrad off;
    const auto from = nn::state_dict(other.net), to = nn::state_dict(net);
    for (size_t i = 0; i < from.size(); ++i) to[i].tensor.detach().copy_(from[i].tensor.detach());
    if (scaler.is_enabled() && other.scaler.is_enabled()) scaler.load_state_dict(other.scaler.state_dict());
    if (tells == Tells::after_update) tell();
    hook->load_state_dict(other.hook->state_dict());
  }

  Communicator& ranks;
  Net net = seeded();
  optim::SGD sgd{nn::parameters(net), {.lr = 0.1}};
  std::shared_ptr<PowerSgdHook> hook = power_sgd();
  optim::GradScaler scaler;
  Tells tells;
  DistributedDataParallel ddp;
};

}  // namespace

TEST_CASE("41: a loss scale told to PowerSGD before its state is loaded stays") {
  for_each_world([](Communicator& ranks) {
    for (const Tells tells : {Tells::before_backward, Tells::after_update, Tells::once}) {
      optim::GradScalerOptions options{.init_scale = 1024, .growth_interval = 3};
      if (tells == Tells::once) options.policy = optim::ScalePolicy::fixed;
      OwnLoop whole(ranks, options, tells), first(ranks, options, tells), second(ranks, options, tells);
      for (int i = 0; i < 10; ++i) whole.step(i);
      for (int i = 0; i < 5; ++i) first.step(i);
      second.go_on_from(first);
      for (int i = 5; i < 10; ++i) second.step(i);
      CHECK(equal_all(values(second.net), values(whole.net)));
    }
  });
}

TEST_CASE("41: join after a resume: errors of ranks without data follow the others' scale") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const bool scaled_before : {false, true})
      for (const bool scaled_after : {false, true}) {
        OwnLoop first(ranks, {.init_scale = 1024, .enabled = scaled_before}, Tells::before_backward);
        OwnLoop second(ranks, {.init_scale = 1024, .enabled = scaled_after}, Tells::before_backward);
        for (int i = 0; i < 5; ++i) first.step(i);
        second.go_on_from(first);
        const int end = ranks.rank() == 0 && ranks.size() > 1 ? 5 : 9;
        join(second.ddp, [&] {
          for (int i = 5; i < end; ++i) second.step(i);
        });
        if (expected.empty()) expected = values(second.net);
        CHECK(equal_all(values(second.net), expected));
      }
  });
}

TEST_CASE("41: a PowerSGD hook that served 16-mixed serves 32-true") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const bool scales : {false, true}) {
      const auto hook = power_sgd();
      Net net = seeded();
      for (const int first : {0, 5}) {
        FabricOptions options = scales && first == 0 ? scaled(ranks, {.init_scale = 1024}) : over(ranks);
        options.plugins.strategy = std::make_shared<DdpStrategy>(DdpOptions{.comm_hook = hook});
        Fabric fabric(options);
        fabric.launch([&] {
          optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
          auto [model, optimizer] = fabric.setup(net, sgd);
          for (int i = first; i < first + 5; ++i) {
            optimizer.zero_grad();
            fabric.backward(batch_loss(ranks, model, i));
            CHECK(optimizer.step());
          }
        });
      }
      if (scales)
        CHECK(difference(values(net), expected) < 2e-3);
      else
        expected = values(net);
    }
  });
}

TEST_CASE("41: errors of 16 bits follow a scale that 16 bits do not hold") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const double scale : {1.0, 65536.0}) {
      const auto hook = power_sgd();
      Net net = seeded();
      DistributedDataParallel ddp(ranks, nn::parameters(net), {}, {.comm_hook = fp16_compress_wrapper(hook)});
      const auto backward = [&](int i, double by) {
        nn::zero_grad(net);
        hook->set_gradient_scale(full({}, by, f64));
        (ddp.forward([&] { return batch_loss(ranks, net, i); }) * (1e-3 * by)).backward();
      };
      for (int i = 0; i < 3; ++i) backward(i, 1);
      backward(3, scale);
      std::vector<Tensor> gradients;
      for (const auto& [name, p] : nn::parameters(net)) gradients.push_back(p.grad() / scale);
      if (scale == 1) expected = gradients;
      double largest = 0;
      for (const Tensor& g : expected) largest = std::max(largest, abs(g).max().item<double>());
      CHECK(difference(gradients, expected) < 1e-2 * largest);
    }
  });
}

TEST_CASE("41: whose scale PowerSGD knows, and when") {
  for_each_world([](Communicator& ranks) {
    OwnLoop loop(ranks, {.init_scale = 1024, .growth_interval = 1}, Tells::after_update);
    for (int i = 0; i < 3; ++i) loop.step(i);
    CHECK(loop.hook->gradient_scale() == 8192);
    CHECK(loop.hook->state_dict().at("gradient_scale").item<double>() == 4096);  // that errors carry
    loop.hook->set_gradient_scale(full({}, ranks.rank() == 0 ? 256.0 : 1024.0, f64));
    join(loop.ddp, [&] {
      if (ranks.rank() != 0) loop.backward(9);
    });
    CHECK(loop.hook->gradient_scale() == (ranks.rank() == 0 ? 256 : 1024));
    CHECK(contains(error_of([&] { loop.hook->set_gradient_scale(full({}, 0, f64)); }), "expected a positive number"));
    auto saved = loop.hook->state_dict();
    saved["gradient_scale"] = full({}, -1, f64);
    CHECK(contains(error_of([&] { loop.hook->load_state_dict(saved); }), "saved gradient scale is -1"));
  });
}

TEST_CASE("41: a backward pass that throws leaves no scale with PowerSGD") {
  for_each_world([](Communicator& ranks) {
    const auto hook = power_sgd();
    FabricOptions options = scaled(ranks, {.init_scale = 1024});
    options.plugins.strategy = std::make_shared<DdpStrategy>(DdpOptions{.comm_hook = hook});
    Fabric fabric(options);
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      const Tensor loss = batch_loss(ranks, model, 0);
      loss.register_hook([](const Tensor&) -> Tensor { fail("on purpose"); });
      CHECK(contains(error_of([&] { fabric.backward(loss); }), "on purpose"));
      CHECK(hook->gradient_scale() == 1);
    });
  });
}
