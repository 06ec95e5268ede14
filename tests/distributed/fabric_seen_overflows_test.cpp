// SPDX-License-Identifier: Apache-2.0
// Overflows that a clip has seen: dropped, saved, loaded; and scales that f16 does not hold.
#include "fabric_scaling.h"

using namespace fabric_test;

TEST_CASE("an overflow that a clip has seen and that is dropped before a checkpoint shrinks the scale after it") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    const auto run = [&](bool loads) {
      Fabric fabric(scaled(ranks, {.init_scale = 1024}));
      fabric.launch([&] {
        Two two(fabric);
        const State state = {{"left", two.left}, {"right", two.right}, {"a", two.a}, {"b", two.b}};
        if (loads) {
          fabric.load(folder / "dropped.ckpt", state);
        } else {
          fabric.backward(loss_of(two.left) * infinite);
          fabric.clip_gradients(two.left, two.a, {.max_norm = 1});
          two.a.zero_grad();
          fabric.save(folder / "dropped.ckpt", state);
        }
        CHECK(scale_of(fabric) == 1024);
        fabric.backward(loss_of(two.left));
        fabric.backward(loss_of(two.right));
        CHECK(two.b.step());
        CHECK(scale_of(fabric) == 1024);
        CHECK(two.a.step());
        CHECK(scale_of(fabric) == 512);
      });
    };
    run(false);
    run(true);
  });
}

TEST_CASE("an overflow that a clip has seen, loaded while its gradients are still there, is one") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Two two(fabric);
      const State state = {{"left", two.left}, {"a", two.a}};
      fabric.backward(loss_of(two.left) * infinite);
      fabric.clip_gradients(two.left, two.a, {.max_norm = 1});
      fabric.save(folder / "seen.ckpt", state);
      fabric.load(folder / "seen.ckpt", state);
      CHECK_FALSE(two.a.step());
      CHECK(scale_of(fabric) == 512);
    });
    Fabric other(scaled(ranks, {.init_scale = 1024}));
    other.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = other.setup(net, sgd);
      other.load(folder / "seen.ckpt", {{"left", model}});
      CHECK(scale_of(other) == 512);  // no optimizer of its own will tell of it
    });
    Fabric later(scaled(ranks, {.init_scale = 1024}));
    later.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto model = later.setup_module(net);
      later.load(folder / "seen.ckpt", {{"left", model}});
      auto optimizer = later.setup_optimizers(sgd);
      later.backward(loss_of(model) * infinite);
      CHECK_FALSE(optimizer.step());
      CHECK(scale_of(later) == 256);
    });
  });
}

TEST_CASE("16-true: a scale that f16 does not hold leaves gradients that are zero, or small, as they are") {
  for_each_world([](Communicator& ranks) {
    FabricOptions options = over(ranks);
    options.precision = "16-true";
    Fabric fabric(options);
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      CHECK(scale_of(fabric) == 65536);
      fabric.backward(loss_of(model) * 1e-3);
      CHECK(optimizer.step());
      optimizer.zero_grad(false);
      for (const Tensor& g : optimizer->gradients()) g.zero_();  // once more, by hand
      fabric.backward(loss_of(model) * 1e-3);
      CHECK(optimizer.step());
      CHECK(scale_of(fabric) == 65536);
    });
  });
}

TEST_CASE("an overflow that a clip has seen is dropped past the handle, after another backward pass") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = fabric.setup(net, sgd);
      fabric.backward(loss_of(model) * infinite);
      fabric.clip_gradients(model, optimizer, {.max_norm = 1});
      fabric.backward(loss_of(model));
      nn::zero_grad(net);
      fabric.backward(loss_of(model));
      CHECK(optimizer.step());
      CHECK(scale_of(fabric) == 512);
    });
  });
}
