// SPDX-License-Identifier: Apache-2.0
// Gradients under loss scaling: whatever happens to them between backward and step, steps are those of 32-true.
#include "fabric_scaling.h"

using namespace fabric_test;

namespace {

using Course = void (*)(Fabric&, Two&, const std::filesystem::path&);

void clip(Fabric& fabric, const FabricModule<Net>& model, const FabricOptimizer<optim::SGD>& optimizer) {
  fabric.clip_gradients(model, optimizer, {.max_norm = 0.25});
}
void both(Fabric& fabric, Two& two, double by = 1) { fabric.backward((loss_of(two.left) + loss_of(two.right)) * by); }
void step_both(Two& two) {
  two.a.step();
  two.b.step();
}

// What may happen to gradients between two steps, past Fabric or through it.
const std::vector<std::pair<std::string, Course>> courses = {
    {"zeroed past Fabric",
     [](Fabric& fabric, Two& two, const auto&) {
       both(fabric, two);
       clip(fabric, two.left, two.a);
       clip(fabric, two.right, two.b);
       two.a->zero_grad();
       nn::zero_grad(two.second);
       both(fabric, two);
       step_both(two);
     }},
    {"zeroed in place",
     [](Fabric& fabric, Two& two, const auto&) {
       both(fabric, two);
       clip(fabric, two.left, two.a);
       clip(fabric, two.right, two.b);
       two.a->zero_grad(false);
       two.b.zero_grad(false);
       both(fabric, two);
       step_both(two);
     }},
    {"a batch left out, its gradients cleared by hand",
     [](Fabric& fabric, Two& two, const auto&) {
       for (int i = 0; i < 3; ++i) {
         both(fabric, two, 1 + i);
         if (i == 1) clip(fabric, two.left, two.a);
         if (i != 1) step_both(two);
         for (Net* const net : {&two.first, &two.second})
           for (const NamedTensor& p : nn::parameters(*net)) p.tensor.set_grad({});
       }
     }},
    {"a backward pass between a clip and its step",
     [](Fabric& fabric, Two& two, const auto&) {
       both(fabric, two);
       clip(fabric, two.left, two.a);
       clip(fabric, two.right, two.b);
       two.a.step();
       two.a.zero_grad();
       both(fabric, two);
       two.b.step();
     }},
    {"a backward pass of another optimizer between a clip and its step",
     [](Fabric& fabric, Two& two, const auto&) {
       for (int i = 0; i < 2; ++i) {
         fabric.backward(loss_of(two.left));
         clip(fabric, two.left, two.a);
         fabric.backward(loss_of(two.right));
         clip(fabric, two.right, two.b);
         step_both(two);
         two.a.zero_grad();
         two.b.zero_grad();
       }
     }},
    {"back to a checkpoint",
     [](Fabric& fabric, Two& two, const std::filesystem::path& path) {
       const State state = {{"left", two.left}, {"right", two.right}, {"a", two.a}, {"b", two.b}};
       fabric.save(path, state);
       both(fabric, two);
       clip(fabric, two.left, two.a);
       fabric.load(path, state);
       nn::zero_grad(two.first);
       both(fabric, two);
       step_both(two);
     }},
    {"back to a checkpoint, with the gradients that were there",
     [](Fabric& fabric, Two& two, const std::filesystem::path& path) {
       const State state = {{"left", two.left}, {"right", two.right}, {"a", two.a}, {"b", two.b}};
       fabric.save(path, state);
       both(fabric, two);
       clip(fabric, two.left, two.a);
       fabric.load(path, state);
       step_both(two);
     }},
    {"clipped after each part",
     [](Fabric& fabric, Two& two, const auto&) {
       for (int i = 0; i < 4; ++i) {
         both(fabric, two, 0.25 * (1 + i));
         clip(fabric, two.left, two.a);
         fabric.clip_gradients(two.right, two.b, {.max_norm = 1e6});  // which would not hide a scale
       }
       step_both(two);
     }},
    {"stepped with twice, and added to afterwards",
     [](Fabric& fabric, Two& two, const auto&) {
       both(fabric, two);
       clip(fabric, two.left, two.a);
       step_both(two);
       step_both(two);
       both(fabric, two);
       step_both(two);
     }},
    {"set by hand",
     [](Fabric& fabric, Two& two, const auto&) {
       both(fabric, two);
       step_both(two);
       two.a.zero_grad();
       two.b.zero_grad();
       for (const NamedTensor& p : nn::parameters(two.first)) p.tensor.set_grad(p.tensor.detach() * 0.5);
       step_both(two);
     }},
    {"of a penalty on parameters, before Fabric's",
     [](Fabric& fabric, Two& two, const auto&) {
       both(fabric, two);
       step_both(two);
       two.a.zero_grad();
       two.b.zero_grad(false);
       sum(two.first.first.weight * two.first.first.weight).backward();
       sum(two.second.first.weight * two.second.first.weight * 0.01).backward();
       two.a.step();
       both(fabric, two);
       two.b.step();
     }},
};

std::vector<Tensor> after(Communicator& ranks, const std::shared_ptr<Precision>& precision, Course course,
                          const std::filesystem::path& path) {
  FabricOptions options = over(ranks);
  options.plugins.precision = precision;
  Fabric fabric(options);
  std::vector<Tensor> out;
  fabric.launch([&] {
    Two two(fabric);
    two.first_sgd.param_groups()[0].set_lr(0.1);
    two.second_sgd.param_groups()[0].set_lr(0.1);
    course(fabric, two, path);
    out = values(two.first);
    for (const Tensor& x : values(two.second)) out.push_back(x);
  });
  return out;
}

}  // namespace

TEST_CASE("whatever happens to gradients between backward and step, steps are those of 32-true") {
  for (const auto& [what, course] : courses)
    for_each_world([&, &what = what, &course = course](Communicator& ranks) {
      CAPTURE(what);
      const SharedFolder folder(ranks);
      const auto full_precision = after(ranks, std::make_shared<FullPrecision>(), course, folder / "a.ckpt");
      for (const int64_t interval : {2000, 1}) {
        const optim::GradScalerOptions scaling{.init_scale = 1024, .growth_interval = interval};
        const auto mixed = after(ranks, std::make_shared<MixedPrecision>(f16, scaling), course, folder / "b.ckpt");
        CHECK(difference(mixed, full_precision) < 2e-3);
        const auto half = after(ranks, std::make_shared<HalfPrecision>(f16, scaling), course, folder / "c.ckpt");
        CHECK(difference(half, full_precision) < 4e-3);
      }
    });
}

TEST_CASE("overflows that a loop drops past Fabric shrink the scale, each once; those it adds to are one") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Two two(fabric);
      for (int i = 0; i < 3; ++i) {
        fabric.backward(loss_of(two.left) * infinite);
        two.b.step();
        fabric.clip_gradients(two.left, two.a, {.max_norm = 1});
        if (i == 1)
          two.a->zero_grad(false);
        else
          nn::zero_grad(two.first);
      }
      fabric.backward(loss_of(two.left));
      CHECK(two.a.step());
      CHECK(scale_of(fabric) == 128);
      two.a.zero_grad();
      for (int i = 0; i < 3; ++i) {
        fabric.backward(loss_of(two.left));
        if (i == 0)  // not NaN, which would survive being clamped
          for (const Tensor& g : two.a->gradients()) g.fill_(infinite);
        fabric.clip_gradients(two.left, two.a, {.clip_val = 1});
      }
      CHECK_FALSE(two.a.step());
      CHECK(scale_of(fabric) == 64);
    });
  });
}

TEST_CASE("loading forgets the iteration that it interrupts") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = fabric.setup(net, sgd);
      fabric.save(folder / "a.ckpt", {{"model", model}});
      fabric.backward(loss_of(model) * infinite);
      fabric.clip_gradients(model, optimizer, {.max_norm = 1});
      fabric.load(folder / "a.ckpt", {{"model", model}});
      optimizer.zero_grad();
      CHECK(scale_of(fabric) == 1024);
    });
  });
}

TEST_CASE("an overflow at the smallest scale is the step's error, not that of zero_grad") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 64, .min_scale = 64, .raise_at_min_scale = true}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = fabric.setup(net, sgd);
      fabric.backward(loss_of(model) * infinite);
      fabric.clip_gradients(model, optimizer, {.max_norm = 1});
      CHECK(error_of([&, &optimizer = optimizer] { optimizer.zero_grad(); }).empty());
      fabric.backward(loss_of(model) * infinite);
      CHECK(contains(error_of([&, &optimizer = optimizer] { optimizer.step(); }), "at the smallest loss scale, 64"));
      optimizer.zero_grad();
      fabric.backward(loss_of(model));
      CHECK(optimizer.step());
      CHECK(scale_of(fabric) == 64);
    });
  });
}

TEST_CASE("gradients that wait stay as they are while the scale does") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Two two(fabric);
      fabric.backward(loss_of(two.right));
      const Tensor waiting = two.second.first.weight.grad();
      const uint64_t version = waiting.version();
      for (int i = 0; i < 3; ++i) {
        fabric.backward(loss_of(two.left));
        CHECK(two.a.step());
        two.a.zero_grad();
      }
      CHECK(waiting.version() == version);
    });
  });
}

TEST_CASE("true gradients that a backward pass does not add to are true again after it") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Two two(fabric);
      both(fabric, two);
      step_both(two);
      std::vector<Tensor> before;
      for (const Tensor& g : two.b->gradients()) before.push_back(g.clone());
      fabric.backward(loss_of(two.left));
      CHECK(equal_all(two.b->gradients(), before));
    });
  });
}

TEST_CASE("gradients from before setup are true") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const bool scales : {false, true}) {
      Fabric fabric(scales ? scaled(ranks, {.init_scale = 1024}) : over(ranks));
      fabric.launch([&] {
        Net net = seeded();
        optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
        sum(net(rows(0, 4, 6))).backward();
        auto [model, optimizer] = fabric.setup(net, sgd);
        CHECK(optimizer.step());
        fabric.backward(loss_of(model));
        CHECK(optimizer.step());
        if (scales)
          CHECK(difference(values(net), expected) < 1e-3);
        else
          expected = values(net);
      });
    }
  });
}

TEST_CASE("clipping by value leaves an overflow what it is: no later step takes it for a gradient") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 1024}));
    fabric.launch([&] {
      Two two(fabric);
      fabric.backward(loss_of(two.left));
      for (const Tensor& g : two.a->gradients()) g.fill_(infinite);
      fabric.clip_gradients(two.left, two.a, {.clip_val = 1});
      const auto before = values(two.first);
      CHECK_FALSE(two.a.step());
      CHECK_FALSE(two.a.step());
      CHECK(equal_all(values(two.first), before));
    });
  });
}

TEST_CASE("join: gradients of another model wait for its end, and step as in 32-true") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const bool scales : {false, true}) {
      FabricOptions options = over(ranks);
      if (scales) options = scaled(ranks, {.init_scale = 1024});
      Fabric fabric(options);
      fabric.launch([&] {
        Two two(fabric);
        fabric.backward(loss_of(two.right));
        fabric.join(two.left, [&] {
          for (int i = 0; i < 1 + 2 * fabric.global_rank(); ++i) {
            two.a.zero_grad();
            fabric.backward(loss_of(two.left) * (scales && i > 0 ? infinite : 1.0));
            two.a.step();
          }
        });
        if (scales)
          CHECK(scale_of(fabric) == (fabric.world_size() == 1 ? 1024 : 1024 >> (2 * (fabric.world_size() - 1))));
        CHECK(two.b.step());
        for (const NamedTensor& p : nn::parameters(two.second)) {
          const Tensor everyones = fabric.all_gather(p.tensor.detach());
          for (int64_t r = 1; r < fabric.world_size(); ++r) CHECK(equal(everyones[r], everyones[0]));
        }
        if (scales)
          CHECK(difference(values(two.second), expected) < 1e-3);
        else
          expected = values(two.second);
      });
    }
  });
}

TEST_CASE("a backward pass that throws leaves gradients whose scale is known") {
  std::vector<std::vector<Tensor>> results;
  for (const char* precision : {"32-true", "16-mixed"}) {
    const auto self = self_communicator();
    Fabric fabric(over(*self, {.precision = precision}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      const Tensor loss = loss_of(model);
      net.first.weight.register_hook([](const Tensor&) -> std::optional<Tensor> { throw std::runtime_error("hook"); });
      CHECK_THROWS_WITH(fabric.backward(loss), "hook");
      CHECK(net.second.weight.grad().defined());
      CHECK(optimizer.step());
      results.push_back(values(net));
    });
  }
  CHECK(difference(results.at(0), results.at(1)) < 1e-3);
  CHECK(difference(results.at(0), values(seeded())) > 1e-2);
}
