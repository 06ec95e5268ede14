// SPDX-License-Identifier: Apache-2.0
// Loss scaling where ranks see different things in their gradients: what one has found, all act on.
#include <loom/distributed/default_hooks.h>
#include <loom/distributed/power_sgd.h>
#include <loom/fabric/strategies/ddp.h>

#include "fabric_scaling.h"

using namespace fabric_test;

namespace {

// Two branches, of which a forward uses one.
struct Fork {
  Net left = seeded(), right = seeded(4);
  Tensor operator()(const Tensor& x, bool first) const { return first ? left(x) : right(x); }
  LOOM_MEMBERS(left, right)
};

}  // namespace

TEST_CASE("an overflow that one rank has found in gradients of its own is skipped by all") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      {
        const auto local = fabric.no_backward_sync(model);
        fabric.backward(loss_of(model) * (fabric.global_rank() == 0 ? infinite : 1.0));
      }
      CHECK_FALSE(optimizer.step());
      CHECK(equal_all(values(net), values(seeded())));
      CHECK(scale_of(fabric) == 512);
    });
  });
}

TEST_CASE(
    "an overflow on one rank, a batch that gives zeros on the others, clipped before gradients are synchronised") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      {
        const auto local = fabric.no_backward_sync(model);
        fabric.backward(loss_of(model) * (fabric.global_rank() == 0 ? infinite : 0.0));
        fabric.clip_gradients(model, optimizer, {.max_norm = 1});
      }
      fabric.backward(loss_of(model));
      CHECK_FALSE(optimizer.step());
      CHECK(scale_of(fabric) == 512);
      for (int i = 0; i < 3; ++i) {
        optimizer.zero_grad();
        fabric.backward(loss_of(model));
        CHECK(optimizer.step());
        CHECK(scale_of(fabric) == 512);
        CHECK(alike(fabric, values(net)));
      }
    });
  });
}

TEST_CASE("ranks that use different branches, clipped after each part: as in 32-true") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const bool scales : {false, true}) {
      FabricOptions options = scales ? scaled(ranks, {.init_scale = 1024}) : over(ranks);
      options.strategy = ranks.size() == 1 ? "auto" : "ddp_find_unused_parameters_true";
      Fabric fabric(options);
      fabric.launch([&] {
        Fork net;
        optim::SGD left_sgd(nn::parameters(net.left), {.lr = 0.1}), right_sgd(nn::parameters(net.right), {.lr = 0.1});
        auto model = fabric.setup_module(net);
        auto a = fabric.setup_optimizers(left_sgd), b = fabric.setup_optimizers(right_sgd);
        const auto part = [&](int number) {
          const bool first = number == 1 && fabric.global_rank() % 2 == 0;
          fabric.backward(mse_loss(model(rows(9 * number, 4, 6), first), rows(0, 4, 3)));
          fabric.clip_gradients(model, a, {.max_norm = 0.25});
          fabric.clip_gradients(model, b, {.max_norm = 0.25});
        };
        {
          const auto local = fabric.no_backward_sync(model);
          part(0);
          part(1);
        }
        part(2);
        CHECK(a.step());
        CHECK(b.step());
        if (scales)
          CHECK(difference(values(net), expected) < 1e-3);
        else
          expected = values(net);
      });
    }
  });
}

TEST_CASE("16-true: gradients that wait, clipped, and overflow as the scale grows: the step is skipped") {
  for_each_world([](Communicator& ranks) {
    FabricOptions options = over(ranks);
    options.plugins.precision =
        std::make_shared<HalfPrecision>(f16, optim::GradScalerOptions{.init_scale = 1024, .growth_interval = 1});
    Fabric fabric(options);
    fabric.launch([&] {
      Two two(fabric);
      fabric.backward(loss_of(two.left));
      for (const Tensor& g : two.a->gradients()) g.fill_(40000);
      fabric.clip_gradients(two.left, two.a, {.max_norm = 1e6});
      const auto before = values(two.first);
      for (int i = 0; i < 3; ++i) {
        two.b.zero_grad();
        fabric.backward(loss_of(two.right));
        CHECK(two.b.step());
      }
      CHECK_FALSE(two.a.step());
      CHECK(equal_all(values(two.first), before));
    });
  });
}

TEST_CASE("an overflow is at the smallest scale if the one before it has made it so") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 128, .min_scale = 64, .raise_at_min_scale = true}));
    fabric.launch([&] {
      Two two(fabric);  // whose second waits: both steps of the first are in one iteration each
      fabric.backward(loss_of(two.left) * infinite);
      CHECK_FALSE(two.a.step());
      two.a.zero_grad();
      fabric.backward(loss_of(two.left) * infinite);
      CHECK(contains(error_of([&] { two.a.step(); }), "at the smallest loss scale, 64"));
    });
  });
}

TEST_CASE("gradients zeroed by the handle, in place, are not multiplied") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 64}));
    fabric.launch([&] {
      Two two(fabric);
      fabric.backward(loss_of(two.left) + loss_of(two.right));
      two.a.step();
      two.b.step();
      two.b.zero_grad(false);
      const Tensor waits = two.second.first.weight.grad();
      const auto version = waits.version();
      fabric.backward(loss_of(two.left));
      CHECK(waits.version() == version);
    });
  });
}

TEST_CASE("a checkpoint of an iteration that is not over, loaded beside other optimizers, ends it") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Two two(fabric);
      fabric.backward(loss_of(two.left) * infinite);
      two.a.step();
      fabric.save(folder / "a.ckpt", {{"left", two.left}});
    });
    Fabric other(scaled(ranks, {.init_scale = 1024}));
    other.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = other.setup(net, sgd);
      other.load(folder / "a.ckpt", {{"left", model}});
      CHECK(scale_of(other) == 512);
      other.backward(loss_of(model) * infinite);
      CHECK_FALSE(optimizer.step());
      CHECK(scale_of(other) == 256);
    });
  });
}

TEST_CASE("join: what ranks with data have found and not stepped with is forgotten by all") {
  for_each_world([](Communicator& ranks) {
    if (ranks.size() == 1) return;
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      fabric.join(model, [&, &model = model, &optimizer = optimizer] {
        for (int i = 0; i < (fabric.global_rank() == 0 ? 1 : 3); ++i) {
          optimizer.zero_grad();
          fabric.backward(loss_of(model));
          if (i < 2) {
            CHECK(optimizer.step());
          } else {
            for (const Tensor& g : optimizer->gradients()) g.fill_(infinite);
            fabric.clip_gradients(model, optimizer, {.clip_val = 1});
          }
        }
      });
      optimizer.zero_grad();
      CHECK(scale_of(fabric) == 1024);
      fabric.backward(loss_of(model));
      CHECK(optimizer.step());
      CHECK(alike(fabric, values(net)));
    });
  });
}

TEST_CASE("one rank drops its own part, by the handle: scale and weights stay alike") {
  for_each_world([](Communicator& ranks) {
    for (const bool overflows : {false, true}) {
      Fabric fabric(scaled(ranks, {.init_scale = 1024, .growth_interval = 4}));
      fabric.launch([&] {
        Net net = seeded();
        optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
        auto [model, optimizer] = fabric.setup(net, sgd);
        for (int i = 0; i < 10; ++i) {
          {
            const auto local = fabric.no_backward_sync(model);
            fabric.backward(loss_of(model) * (overflows && i % 3 == 1 && fabric.global_rank() == 0 ? infinite : 1.0));
            fabric.clip_gradients(model, optimizer, {.max_norm = 1, .error_if_nonfinite = false});
          }
          if (fabric.global_rank() == 0) optimizer.zero_grad();
          fabric.backward(loss_of(model));
          optimizer.step();
          optimizer.zero_grad();
          scale_of(fabric);  // the same on all ranks
          CHECK(alike(fabric, values(net)));
        }
      });
    }
  });
}

TEST_CASE("a backward pass that one rank makes alone, between a clip and its step") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Two two(fabric);
      fabric.backward(loss_of(two.left));
      fabric.clip_gradients(two.left, two.a, {.max_norm = 1});
      if (fabric.global_rank() == 0) {
        const auto local = fabric.no_backward_sync(two.right);
        fabric.backward(loss_of(two.right));
      }
      CHECK(two.a.step());
      CHECK(alike(fabric, values(two.first)));
    });
  });
}

TEST_CASE("join: an overflow in what is taken over is skipped by all; what is not is a true gradient") {
  for_each_world([](Communicator& ranks) {
    for (const bool overflows : {false, true}) {
      std::vector<Tensor> expected;
      for (const bool scales : {false, true}) {
        Fabric fabric(scales ? scaled(ranks, {.init_scale = 1024}) : over(ranks));
        fabric.launch([&] {
          Net net = seeded();
          optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
          auto [model, optimizer] = fabric.setup(net, sgd);
          fabric.join(model, [&, &model = model, &optimizer = optimizer] {
            for (int i = 0; i < 1 + fabric.global_rank(); ++i) {
              optimizer.zero_grad();
              fabric.backward(loss_of(model) * (overflows && i + 1 == fabric.world_size() ? infinite : 1.0));
              if (overflows) fabric.clip_gradients(model, optimizer, {.clip_val = 1});
            }
          });
          if (!overflows && (scales || fabric.world_size() == 1)) {
            if (fabric.world_size() > 1) CHECK(difference(optimizer->gradients(), expected) < 1e-3);
          } else if (!overflows) {
            for (const Tensor& g : optimizer->gradients()) expected.push_back(g.clone());
          } else if (scales) {
            CHECK_FALSE(optimizer.step());
            CHECK(scale_of(fabric) == 512);
          }
        });
      }
    }
  });
}

namespace {

std::shared_ptr<CommHook> power_sgd() {
  return std::make_shared<PowerSgdHook>(PowerSgdOptions{.start_powerSGD_iter = 1, .min_compression_rate = 1});
}

FabricOptions compressed(Communicator& ranks, bool scales, const std::shared_ptr<CommHook>& hook) {
  FabricOptions options = scales ? scaled(ranks, {.init_scale = 1024, .growth_interval = 3}) : over(ranks);
  options.plugins.strategy = std::make_shared<DdpStrategy>(DdpOptions{.comm_hook = hook});
  return options;
}

void compressed_step(Fabric& fabric, const FabricModule<Net>& model, FabricOptimizer<optim::SGD>& optimizer, int i,
                     bool overflows = false) {
  optimizer.zero_grad();
  const Tensor y = model(rows(50 * i + 4 * fabric.global_rank(), 4, 6));
  fabric.backward(mse_loss(y, rows(4 * i, 4, 3)) * (overflows ? infinite : 1.0));
  CHECK(optimizer.step() == !overflows);
}

}  // namespace

TEST_CASE("41: PowerSGD's errors follow the loss scale: training with skipped steps is as in 32-true") {
  for_each_world([](Communicator& ranks) {
    for (const bool wrapped : {false, true}) {
      std::vector<Tensor> expected;
      for (const bool scales : {false, true}) {
        const auto hook = power_sgd();
        Fabric fabric(compressed(ranks, scales, wrapped ? fp16_compress_wrapper(hook) : hook));
        fabric.launch([&] {
          Net net = seeded();
          optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
          auto [model, optimizer] = fabric.setup(net, sgd);
          for (int i = 0; i < 12; ++i) {
            const bool overflows = i == 4 || i == 9;
            if (!overflows || scales) compressed_step(fabric, model, optimizer, i, overflows);
          }
          if (scales)
            CHECK(difference(values(net), expected) < (wrapped ? 1e-2 : 2e-3));
          else
            expected = values(net);
        });
      }
    }
  });
}

TEST_CASE("41: PowerSGD's state goes from one precision to another") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    std::vector<Tensor> expected;
    for (const bool before : {false, true})
      for (const bool after : {false, true}) {
        for (const bool resumes : {false, true}) {
          const auto hook = std::dynamic_pointer_cast<PowerSgdHook>(power_sgd());
          Fabric fabric(compressed(ranks, resumes ? after : before, hook));
          fabric.launch([&] {
            Net net = seeded();
            optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
            auto [model, optimizer] = fabric.setup(net, sgd);
            const State state{{"model", model}, {"hook", *hook}};
            if (resumes) fabric.load(folder / "a.ckpt", state);
            for (int i = 0; i < 5; ++i) compressed_step(fabric, model, optimizer, (resumes ? 5 : 0) + i);
            if (!resumes) return fabric.save(folder / "a.ckpt", state);
            if (expected.empty()) expected = values(net);
            CHECK(difference(values(net), expected) < 2e-3);
          });
        }
      }
  });
}

TEST_CASE("41: join: PowerSGD's errors follow the loss scale on ranks that have run out") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const bool scales : {false, true}) {
      Fabric fabric(compressed(ranks, scales, power_sgd()));
      fabric.launch([&] {
        Net net = seeded();
        optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
        auto [model, optimizer] = fabric.setup(net, sgd);
        for (int epoch = 0; epoch < 2; ++epoch)
          fabric.join(model, [&, &model = model, &optimizer = optimizer] {
            for (int i = 0; i < (fabric.global_rank() == 0 ? 2 : 8); ++i)
              compressed_step(fabric, model, optimizer, 8 * epoch + i);
          });
        if (scales)
          CHECK(difference(values(net), expected) < 2e-3);
        else
          expected = values(net);
      });
    }
  });
}
