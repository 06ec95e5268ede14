// SPDX-License-Identifier: Apache-2.0
// When Fabric changes its loss scale: once an iteration, whatever optimizers there are and in whatever order they step.
#include "fabric_scaling.h"

using namespace fabric_test;

namespace {

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

double factor(char kind) { return kind == 'o' ? infinite : 1.0; }

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
      fabric.backward(loss_of(model));
      CHECK(optimizer.step());
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
