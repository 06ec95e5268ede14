// SPDX-License-Identifier: Apache-2.0
// When Fabric changes its loss scale: once an iteration, whatever optimizers there are and in whatever order they step.
#include <limits>

#include <loom/nn/optim/grad_scaler.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

constexpr double infinite = std::numeric_limits<double>::infinity();

FabricOptions scaled(Communicator& ranks, const optim::GradScalerOptions& scaling) {
  FabricOptions options = over(ranks);
  options.plugins.precision = std::make_shared<MixedPrecision>(f16, scaling);
  return options;
}

// torch.amp.GradScaler's scale after each iteration; o: one that overflows.
std::vector<double> course(const optim::GradScalerOptions& options, const std::string& iterations) {
  Parameter w(ones({1}));
  optim::SGD sgd(std::vector<NamedTensor>{{"w", w}}, {.lr = 0});
  optim::GradScaler scaler(options);
  std::vector<double> scales;
  for (const char kind : iterations) {
    sgd.zero_grad();
    scaler.scale(sum(w) * (kind == 'o' ? infinite : 1.0)).backward();
    scaler.step(sgd);
    scaler.update();
    scales.push_back(scaler.get_scale());
  }
  return scales;
}

double scale_of(Fabric& fabric) {
  const double scale = fabric.precision().loss_scale();
  const Tensor all = fabric.all_gather(full({}, scale, f64));
  for (int64_t r = 0; r < fabric.world_size(); ++r) CHECK(all[r].item<double>() == scale);
  return scale;
}

Tensor loss_of(const FabricModule<Net>& model) { return mse_loss(model(rows(0, 4, 6)), rows(0, 4, 3)); }
double factor(char kind) { return kind == 'o' ? infinite : 1.0; }

// Two models with an optimizer each.
struct Two {
  Net first = seeded(), second = seeded(4);
  optim::SGD first_sgd{nn::parameters(first), {.lr = 0.01}}, second_sgd{nn::parameters(second), {.lr = 0.01}};
  FabricModule<Net> left, right;
  FabricOptimizer<optim::SGD> a, b;
  explicit Two(Fabric& fabric)
      : left(fabric.setup_module(first)),
        right(fabric.setup_module(second)),
        a(fabric.setup_optimizers(first_sgd)),
        b(fabric.setup_optimizers(second_sgd)) {}
};

// One iteration in which both step; the kinds of their losses.
using Iteration = void (*)(Fabric&, Two&, char, char);

void one_backward(Fabric& fabric, Two& two, char first, char second) {
  fabric.backward(loss_of(two.left) * factor(first) + loss_of(two.right) * factor(second));
  CHECK(two.a.step() == (first != 'o'));
  two.a.zero_grad();
  CHECK(two.b.step() == (second != 'o'));
  two.b.zero_grad();
}

void zeroed_before(Fabric& fabric, Two& two, char first, char second) {
  two.a.zero_grad();
  fabric.backward(loss_of(two.left) * factor(first));
  CHECK(two.a.step() == (first != 'o'));
  two.b.zero_grad();
  fabric.backward(loss_of(two.right) * factor(second));
  CHECK(two.b.step() == (second != 'o'));
}

void zeroed_after(Fabric& fabric, Two& two, char first, char second) {
  fabric.backward(loss_of(two.left) * factor(first));
  CHECK(two.a.step() == (first != 'o'));
  two.a.zero_grad();
  fabric.backward(loss_of(two.right) * factor(second));
  CHECK(two.b.step() == (second != 'o'));
  two.b.zero_grad(false);
}

// As a GAN: the second loss has gradients for both, and they are clipped.
void through_both(Fabric& fabric, Two& two, char first, char second) {
  two.a.zero_grad();
  fabric.backward(loss_of(two.left) * factor(first));
  fabric.clip_gradients(two.left, two.a, {.max_norm = 1});
  CHECK(two.a.step() == (first != 'o'));
  two.b.zero_grad();
  fabric.backward((loss_of(two.right) + loss_of(two.left)) * factor(second));
  fabric.clip_gradients(two.right, two.b, {.max_norm = 1, .error_if_nonfinite = false});
  CHECK(two.b.step() == (second != 'o'));
}

// Steps of the first optimizer, the head's, which overflows above a scale of 128; the second, the body's, accumulates.
int warm_up(Fabric& fabric, Two& two, int steps) {
  int skipped = 0;
  for (int step = 0; step < steps; ++step) {
    const double head = scale_of(fabric) > 128 ? infinite : 1.0;
    fabric.backward(loss_of(two.left) * head + loss_of(two.right));
    skipped += two.a.step() ? 0 : 1;
    two.a.zero_grad();
  }
  return skipped;
}

// A critic's step each time, another's every third; returns the scale after each.
std::vector<double> critic(Fabric& fabric, Two& two, int from, int to) {
  std::vector<double> scales;
  for (int i = from; i < to; ++i) {
    two.a.zero_grad();
    fabric.backward(loss_of(two.left) * (i == 4 || i == 10 ? infinite : 1.0));
    two.a.step();
    scales.push_back(scale_of(fabric));
    if (i % 3 != 2) continue;
    two.b.zero_grad();
    fabric.backward(loss_of(two.right) * (i == 5 ? infinite : 1.0));
    two.b.step();
    scales.push_back(scale_of(fabric));
  }
  return scales;
}

}  // namespace

TEST_CASE("84: one optimizer: the scale is PyTorch's after every step") {
  const optim::GradScalerOptions options{.init_scale = 4, .growth_interval = 2};
  CHECK(course(options, "gggogg") == std::vector<double>{4, 8, 8, 4, 4, 8});
  for_each_world([&](Communicator& ranks) {
    Fabric fabric(scaled(ranks, options));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = fabric.setup(net, sgd);
      for (const std::string kinds : {"gggogg", "oogggg"}) {
        std::vector<double> scales;
        for (const char kind : kinds) {
          fabric.backward(loss_of(model) * factor(kind));
          CHECK(optimizer.step() == (kind != 'o'));
          scales.push_back(scale_of(fabric));
          optimizer.zero_grad();
        }
        if (kinds == "gggogg") CHECK(scales == course(options, kinds));
      }
    });
  });
}

TEST_CASE("93: two optimizers: one change of the scale an iteration, by what both have found") {
  const optim::GradScalerOptions options{.init_scale = 64, .growth_interval = 2};
  const std::string first = "gggogogoggg", second = "ggggoogoggg";
  std::string either;
  for (size_t i = 0; i < first.size(); ++i) either += first[i] == 'o' || second[i] == 'o' ? 'o' : 'g';
  const std::vector<double> expected = course(options, either);
  for (const Iteration iteration : {one_backward, zeroed_before, zeroed_after, through_both})
    for_each_world([&](Communicator& ranks) {
      Fabric fabric(scaled(ranks, options));
      fabric.launch([&] {
        Two two(fabric);
        std::vector<double> scales;
        for (size_t i = 0; i < first.size(); ++i) {
          iteration(fabric, two, first[i], second[i]);
          scales.push_back(scale_of(fabric));
        }
        CHECK(scales == expected);
      });
    });
}

TEST_CASE("an overflow shrinks the scale of the next backward, a growth waits for the iteration's end") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 64, .growth_interval = 1}));
    fabric.launch([&] {
      Two two(fabric);
      fabric.backward(loss_of(two.left) * infinite);
      two.a.step();
      CHECK(scale_of(fabric) == 32);
      fabric.backward(loss_of(two.right) * infinite);
      two.b.step();
      CHECK(scale_of(fabric) == 32);
      two.a.zero_grad();
      two.b.zero_grad();
      fabric.backward(loss_of(two.left));
      two.a.step();
      CHECK(scale_of(fabric) == 32);
      fabric.backward(loss_of(two.right));
      two.b.step();
      CHECK(scale_of(fabric) == 64);
    });
  });
}

TEST_CASE("an optimizer that steps more often: each of its steps is an iteration") {
  const optim::GradScalerOptions options{.init_scale = 64, .growth_interval = 3};
  for_each_world([&](Communicator& ranks) {
    Fabric fabric(scaled(ranks, options));
    fabric.launch([&] {
      Two two(fabric);
      std::vector<double> scales;
      const std::string kinds = "gggggoggoogggggg";  // of the critic, whose every fourth step one of the other follows
      for (size_t i = 0; i < kinds.size(); ++i) {
        two.a.zero_grad();
        fabric.backward(loss_of(two.left) * factor(kinds[i]));
        CHECK(two.a.step() == (kinds[i] != 'o'));
        if (i % 4 != 3) continue;
        two.b.zero_grad();
        fabric.backward(loss_of(two.right));
        CHECK(two.b.step());
        scales.push_back(scale_of(fabric));
      }
      const std::vector<double> all = course(options, kinds);
      CHECK(scales == std::vector<double>{all[3], all[7], all[11], all[15]});
    });
  });
}

TEST_CASE("an optimizer that does not step holds nothing up, and its gradients go on to the new scale") {
  for (const int64_t interval : {2000, 1})  // growing too
    for_each_world([&](Communicator& ranks) {
      Fabric fabric(scaled(ranks, {.init_scale = 1024, .growth_interval = interval}));
      Fabric fixed(scaled(ranks, {.init_scale = 128, .policy = optim::ScalePolicy::fixed}));
      fabric.launch([&] {
        fixed.launch([&] {
          Two two(fabric), same(fixed);
          const int steps = 8;
          CHECK(warm_up(fabric, two, steps) == (interval == 1 ? 5 : 3));
          CHECK(warm_up(fixed, same, steps) == 0);
          CHECK(two.b.step());
          CHECK(same.b.step());
          CHECK(difference(values(two.second), values(same.second)) < 1e-6);
          CHECK(difference(values(two.second), values(seeded(4))) > 1e-2);
          if (interval != 1) CHECK(scale_of(fabric) == 128);
        });
      });
    });
}

TEST_CASE("gradients that only some ranks hold: the scale is the same on all") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 64, .growth_interval = 1}));
    fabric.launch([&] {
      Two two(fabric);
      for (int step = 0; step < 4; ++step) {
        if (fabric.global_rank() == 0) {
          const auto local = fabric.no_backward_sync(two.right);
          fabric.backward(loss_of(two.right));
        }
        fabric.backward(loss_of(two.left));
        CHECK(two.a.step());
        two.a.zero_grad();
        CHECK(scale_of(fabric) == 64 << step);
      }
      CHECK(two.b.step());  // some ranks have no gradients, and take part
      two.b.zero_grad();
      CHECK(scale_of(fabric) == 1024);
    });
  });
}

TEST_CASE("a step without any gradient is a step, as in every precision; gradients that are dropped are an iteration") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 64, .growth_interval = 2}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = fabric.setup(net, sgd);
      CHECK(optimizer.step());
      CHECK(fabric.global_step() == 1);
      CHECK(equal_all(values(net), values(seeded())));
      fabric.backward(loss_of(model) * infinite);
      const auto norm = fabric.clip_gradients(model, optimizer, {.max_norm = 1}).item<double>();
      CHECK_FALSE(std::isfinite(norm));
      CHECK(scale_of(fabric) == 64);
      optimizer.zero_grad();  // a loop of its own mind, which does not step at a norm that is not finite
      CHECK(scale_of(fabric) == 32);
    });
  });
}

TEST_CASE("a checkpoint in the middle of an iteration goes on as if it had not been") {
  for (const int stop : {1, 4, 5, 6, 8, 9, 11})  // 5: after an overflow that waits for the iteration's end
    for_each_world([&](Communicator& ranks) {
      const SharedFolder folder(ranks);
      const optim::GradScalerOptions options{.init_scale = 64, .growth_interval = 2};
      std::vector<double> whole, parts;
      std::vector<Tensor> end, resumed;
      const auto run = [&](int from, int to, bool loads, std::vector<double>& scales) {
        Fabric fabric(scaled(ranks, options));
        std::vector<Tensor> out;
        fabric.launch([&] {
          Two two(fabric);
          const State state = {{"left", two.left}, {"right", two.right}, {"a", two.a}, {"b", two.b}};
          if (loads) fabric.load(folder / "half.ckpt", state);
          const double before = scale_of(fabric);
          if (loads) CHECK(before == scales.back());
          const std::vector<double> more = critic(fabric, two, from, to);
          scales.insert(scales.end(), more.begin(), more.end());
          fabric.save(folder / "half.ckpt", state);
          out = values(two.first);
          for (const Tensor& x : values(two.second)) out.push_back(x);
        });
        return out;
      };
      end = run(0, 14, false, whole);
      run(0, stop, false, parts);
      resumed = run(stop, 14, true, parts);
      CHECK(parts == whole);
      CHECK(equal_all(resumed, end));
    });
}

TEST_CASE("join: two optimizers, one of which waits: afterwards the ranks' scales change alike") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(scaled(ranks, {.init_scale = 64, .growth_interval = 1}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD first(nn::parameters(net.first), {.lr = 0.01}), second(nn::parameters(net.second), {.lr = 0.01});
      auto model = fabric.setup_module(net);
      auto [a, b] = fabric.setup_optimizers(first, second);
      const auto step = [&, &a = a, &b = b](int i) {
        fabric.backward(loss_of(model) * (i == 3 ? infinite : 1.0));
        a.step();
        a.zero_grad();
        if (i % 3 == 2) {
          b.step();
          b.zero_grad();
        }
      };
      const int batches = fabric.global_rank() == 0 ? 2 : 5;  // at the end the first waits for its second
      fabric.join(model, [&] {
        for (int i = 0; i < batches; ++i) step(i);
      });
      scale_of(fabric);
      a.zero_grad();
      b.zero_grad();
      for (int i = 5; i < 12; ++i) {
        step(i);
        scale_of(fabric);
        CHECK(fabric.global_step() > 0);
      }
      for (const NamedTensor& p : nn::parameters(net)) {
        const Tensor everyones = fabric.all_gather(p.tensor.detach());
        for (int64_t r = 1; r < fabric.world_size(); ++r) CHECK(equal(everyones[r], everyones[0]));
      }
    });
  });
}

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
      CHECK(scale_of(fabric) == 128);
      CHECK(two.a.step());
      two.a.zero_grad();
      for (int i = 0; i < 3; ++i) {
        fabric.backward(loss_of(two.left) * (i == 0 ? infinite : 1.0));
        fabric.clip_gradients(two.left, two.a, {.clip_val = 1});
      }
      CHECK_FALSE(two.a.step());  // clamped, and not forgotten
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
