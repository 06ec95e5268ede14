// SPDX-License-Identifier: Apache-2.0
// Fabric's precisions: what they convert, how they scale, skip and agree, and that training gets where f32 gets.
#include <cmath>
#include <limits>

#include <loom/autograd/autocast.h>
#include <loom/autograd/engine.h>
#include <loom/nn/layer_norm.h>
#include <loom/nn/optim/decay.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

constexpr const char* precisions[] = {"64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"};
constexpr double infinite = std::numeric_limits<double>::infinity();

FabricOptions in(const char* precision) { return {.precision = precision}; }

// Tells what its forward saw.
struct Seeing {
  nn::Linear fc{6, 3};
  Buffer count{tensor({1, 2}, i64)};
  mutable DType input = boolean, product = boolean, made = boolean;
  std::pair<Tensor, Tensor> operator()(const Tensor& x, const Tensor& whole) const {
    CHECK(whole.dtype() == i64);
    input = x.dtype();
    made = zeros({1}).dtype();
    const Tensor y = fc(x);
    product = y.dtype();
    return {y, y.to(f64)};
  }
  LOOM_MEMBERS(fc, count)
};

struct Table {
  const char* name;
  DType parameters, input, product, made, output;
};
constexpr Table table[] = {
    {"64-true", f64, f64, f64, f64, f64},  {"32-true", f32, f32, f32, f32, f32},
    {"16-true", f16, f16, f16, f16, f32},  {"bf16-true", bf16, bf16, bf16, bf16, f32},
    {"16-mixed", f32, f16, f16, f32, f32}, {"bf16-mixed", f32, bf16, bf16, f32, f32},
};

// A few layers of what a transformer is made of.
struct Block {
  nn::LayerNorm norm{6};
  nn::Linear up{6, 32}, down{32, 3};
  Tensor operator()(const Tensor& x) const { return down(gelu(up(norm(x)))); }
  LOOM_MEMBERS(norm, up, down)
};

// The losses of training in a precision; factor: of the loss, undone in the learning rate. A skipped step is made
// again.
std::vector<double> losses(Fabric& fabric, int steps, double factor = 1) {
  Block net = seeded<Block>();
  optim::SGD sgd(nn::parameters(net), {.lr = 0.2 / factor, .momentum = 0.9});
  auto [model, optimizer] = fabric.setup(net, sgd);
  std::vector<double> out;
  for (int step = 0, tries = 0; step < steps && tries < 2 * steps; ++tries) {
    const int64_t begin = 8 * (fabric.world_size() * (step % 4) + fabric.global_rank());
    optimizer.zero_grad();
    const Tensor loss = mse_loss(model(rows(begin, 8, 6)), rows(begin + 900, 8, 3));
    fabric.backward(loss * factor);
    if (!optimizer.step()) continue;
    out.push_back(fabric.all_reduce(loss).item<double>());
    ++step;
  }
  return out;
}

}  // namespace

TEST_CASE("what each precision makes of parameters, inputs, products, new tensors and outputs") {
  for (const Table& row : table)
    for_each_fabric(
        [&](Fabric& fabric) {
          Seeing net;
          auto model = fabric.setup(net);
          CHECK(fabric.precision().name() == row.name);
          CHECK(net.fc.weight.dtype() == row.parameters);
          CHECK(net.count.dtype() == i64);
          const auto [y, exact] = model(ones({2, 6}), arange(3));
          CHECK(net.input == row.input);
          CHECK(net.product == row.product);
          CHECK(net.made == row.made);
          CHECK(y.dtype() == row.output);
          CHECK(exact.dtype() == f64);
          CHECK(zeros({1}).dtype() == f32);  // outside
        },
        in(row.name));
}

TEST_CASE("32-true leaves everything as it is") {
  for_each_fabric([](Fabric& fabric) {
    nn::Linear fc(6, 3);
    nn::to(fc, f64);
    auto model = fabric.setup(fc);
    CHECK(fc.weight.dtype() == f64);
    CHECK(model(ones({1, 6}, f64)).dtype() == f64);
  });
}

TEST_CASE("names, aliases and what is said of them") {
  CHECK(make_precision("64")->name() == "64-true");
  CHECK(make_precision("32")->name() == "32-true");
  CHECK(make_precision("16")->name() == "16-mixed");
  CHECK(make_precision("bf16")->name() == "bf16-mixed");
  CHECK(precision_warning("32").empty());
  CHECK(precision_warning("16-mixed").empty());
  CHECK(precision_warning("16") ==
        "precision '16' is supported for historical reasons but its usage is discouraged; say '16-mixed'");
  CHECK(precision_warning("bf16") ==
        "precision 'bf16' is supported for historical reasons but its usage is discouraged; say 'bf16-mixed'");
  CHECK(error_of([] { make_precision("8-true"); }) ==
        "unknown precision '8-true'; available: 64-true, 32-true, 16-true, bf16-true, 16-mixed, bf16-mixed, fp8-mixed");
  CHECK(error_of([] { make_precision(""); }).starts_with("unknown precision ''"));
  CHECK(error_of([] { MixedPrecision(bf16, optim::GradScalerOptions{}); }) ==
        "precision: a loss scaling is for f16 alone; bf16 has the range of f32");
}

TEST_CASE("fp8-mixed says what it needs where it cannot run") {
  const std::string error = error_of([] {
    Fabric fabric({.accelerator = "cpu", .precision = "fp8-mixed"});
    fabric.launch([] {});
  });
  CHECK(error.find("the precision 'fp8-mixed' needs a CUDA device of compute capability 8.9 or later, and this is cpu; "
                   "'bf16-mixed' runs everywhere") != std::string::npos);
}

TEST_CASE("init_module and init_tensor make in the precision's dtype; autocast outside of a forward") {
  for (const Table& row : table)
    for_each_fabric(
        [&](Fabric& fabric) {
          {
            const auto scope = fabric.init_module();
            CHECK(nn::Linear(2, 2).weight.dtype() == row.parameters);
          }
          {
            const auto scope = fabric.init_module(true);
            CHECK(context().skip_init);
          }
          {
            const auto scope = fabric.init_tensor();
            CHECK(zeros({1}).dtype() == row.parameters);
            CHECK_FALSE(context().skip_init);
          }
          CHECK(zeros({1}).dtype() == f32);
          CHECK_FALSE(context().skip_init);
          const bool mixed = std::string(row.name).ends_with("mixed");
          {
            const auto scope = fabric.autocast();
            CHECK(is_autocast_enabled() == mixed);
            if (mixed) CHECK(matmul(ones({2, 2}), ones({2, 2})).dtype() == row.product);
          }
          CHECK_FALSE(is_autocast_enabled());
        },
        in(row.name));
}

TEST_CASE("a forward that throws leaves no scope behind") {
  for (const char* const precision : precisions)
    for_each_fabric(
        [](Fabric& fabric) {
          Net net;
          auto model = fabric.setup(net);
          CHECK(contains(error_of([&] { model(ones({2, 5})); }), "linear"));
          CHECK_FALSE(is_autocast_enabled());
          CHECK(zeros({1}).dtype() == f32);
        },
        in(precision));
}

TEST_CASE("training in each precision gets where 32-true gets") {
  const int steps = 60;
  for_each_fabric([&](Fabric& fabric) {
    const std::vector<double> plain = losses(fabric, steps);
    CHECK(plain.back() < 0.8 * plain.front());
    for (const char* const name : precisions) {
      Fabric other(over(fabric.communicator(), in(name)));
      other.launch([&] {
        const double tolerance = std::string(name) == "bf16-true" || std::string(name) == "16-true" ? 0.03 : 0.01;
        CHECK(losses(other, steps).back() == doctest::Approx(plain.back()).epsilon(tolerance));
      });
    }
  });
}

TEST_CASE("16-mixed without scaling stalls where gradients vanish in f16 and diverges where they overflow") {
  const int steps = 60;
  for (const double factor : {0x1p-22, 0x1p24})
    for_each_fabric([&](Fabric& fabric) {
      const std::vector<double> plain = losses(fabric, steps, factor);
      Fabric scaled(over(fabric.communicator(), in("16-mixed")));
      scaled.launch([&] {
        CHECK(losses(scaled, steps, factor).back() == doctest::Approx(plain.back()).epsilon(0.01));
        CHECK((scaled.precision().loss_scale() < 1) == (factor > 1));
      });
      FabricOptions options = over(fabric.communicator());
      options.plugins.precision = std::make_shared<MixedPrecision>(f16, optim::GradScalerOptions{.enabled = false});
      Fabric unscaled(options);
      unscaled.launch([&] {
        const double last = losses(unscaled, steps, factor).back();
        CHECK(unscaled.precision().loss_scale() == 1);
        CHECK((factor < 1 ? last > 1.2 * plain.back() : std::isnan(last)));
      });
    });
}

TEST_CASE("86: an overflow on one rank is skipped by all, and the scale halves once") {
  for (const char* const precision : {"16-mixed", "16-true"})
    for_each_fabric(
        [](Fabric& fabric) {
          Net net = seeded();
          optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
          optim::ExponentialLR decay(adamw, 0.5);
          auto [model, optimizer] = fabric.setup(net, adamw);
          const auto before = values(net);
          const double scale = fabric.precision().loss_scale();
          for (int step = 0; step < 3; ++step) {
            const bool planted = step == 0 && fabric.global_rank() == fabric.world_size() / 2;
            optimizer.zero_grad();
            fabric.backward(mse_loss(model(rows(0, 4, 6)), rows(0, 4, 3)) * (planted ? infinite : 1.0));
            CHECK(optimizer.step() == (step != 0));
            decay.step();
            if (step == 0) CHECK(equal_all(values(net), before));
            const Tensor scales = fabric.all_gather(full({}, fabric.precision().loss_scale(), f64));
            for (int64_t r = 0; r < fabric.world_size(); ++r) CHECK(scales[r].item<double>() == scale / 2);
          }
          CHECK(fabric.global_step() == 2);
          CHECK(decay.last_epoch() == 2);
          CHECK(adamw.state_dict().at("step.first.weight").item<int64_t>() == 2);
          for (const NamedTensor& p : nn::parameters(net)) {
            const Tensor everyones = fabric.all_gather(p.tensor.detach());
            for (int64_t r = 1; r < fabric.world_size(); ++r) CHECK(equal(everyones[r], everyones[0]));
          }
        },
        in(precision));
}

namespace {

struct Clipped {
  double norm;
  std::vector<Tensor> update;
};

// One step with clipped gradients, large enough that the rounding of 16-bit parameters is small beside it.
Clipped clipped_step(Fabric& fabric, const ClipOptions& options, double factor) {
  Net net = seeded();
  optim::SGD sgd(nn::parameters(net), {.lr = 100});
  auto [model, optimizer] = fabric.setup(net, sgd);
  const std::vector<Tensor> before = values(net);
  fabric.backward(mse_loss(model(rows(0, 4, 6)), rows(0, 4, 3)) * factor);
  const auto norm = fabric.clip_gradients(model, optimizer, options).item<double>();
  CHECK(optimizer.step() == std::isfinite(factor));
  std::vector<Tensor> update = values(net);
  for (size_t i = 0; i < update.size(); ++i) update[i] = update[i].to(f64) - before[i].to(f64);
  return {norm, update};
}

double largest(const std::vector<Tensor>& tensors) {
  double out = 0;
  for (const Tensor& x : tensors) out = std::max(out, abs(x).max().item<double>());
  return out;
}

}  // namespace

TEST_CASE("clipping sees true gradients, and an overflow is skipped rather than raised") {
  for (const char* const precision : {"16-mixed", "16-true", "bf16-mixed", "bf16-true"})
    for_each_fabric(
        [&](Fabric& fabric) {
          Fabric plain(over(fabric.communicator()));
          plain.launch([&] {
            for (const ClipOptions& options :
                 {ClipOptions{.max_norm = 0.01}, ClipOptions{.max_norm = 0.01, .error_if_nonfinite = false},
                  ClipOptions{.clip_val = 0.005}, ClipOptions{.max_norm = 1e6}}) {
              const Clipped low = clipped_step(fabric, options, 1), exact = clipped_step(plain, options, 1);
              CHECK(low.norm == doctest::Approx(exact.norm).epsilon(0.03));
              CHECK(largest(exact.update) > 0.1);
              // Where the largest are clipped, rounding of bf16 shows beside what is left.
              const double share = std::string_view(precision).starts_with("bf16") ? 0.25 : 0.05;
              CHECK(difference(low.update, exact.update) < share * largest(exact.update));
            }
          });
          if (!std::string_view(precision).starts_with("16")) return;
          for (const bool error : {true, false}) {
            const Clipped skipped = clipped_step(fabric, {.max_norm = 0.01, .error_if_nonfinite = error}, infinite);
            CHECK_FALSE(std::isfinite(skipped.norm));
            CHECK(largest(skipped.update) == 0);
          }
        },
        in(precision));
}

TEST_CASE("loss.backward() past Fabric is an error where losses are scaled") {
  for_each_fabric(
      [](Fabric& fabric) {
        Net net;
        auto model = fabric.setup(net);
        const Tensor loss = model(ones({2, 6})).sum();
        CHECK(error_of([&] { loss.backward(); }) ==
              "the precision '16-mixed' requires fabric.backward(loss) instead of loss.backward(), which does not "
              "scale the loss");
        fabric.backward(model(ones({2, 6})).sum());
      },
      in("16-mixed"));
  for (const char* const precision : {"32-true", "bf16-mixed", "bf16-true"})
    for_each_fabric(
        [](Fabric& fabric) {
          Net net;
          auto model = fabric.setup(net);
          model(ones({2, 6})).sum().backward();
          CHECK(net.first.weight.grad().defined());
        },
        in(precision));
}

namespace {

// A weight that lies column by column, and a number that the forward hands out (CLIP's logit scale).
struct Odd {
  Parameter weight{ones({6, 3}, f32).t()}, scale{full({}, 2.0)};
  std::pair<Tensor, Tensor> operator()(const Tensor& x) const { return {linear(x, weight) * scale, scale}; }
  LOOM_MEMBERS(weight, scale)
};

}  // namespace

TEST_CASE("gradients that lie as their parameters do are unscaled; a parameter that is returned is not watched") {
  for_each_fabric(
      [](Fabric& fabric) {
        Odd net;
        CHECK_FALSE(net.weight.is_contiguous());
        optim::SGD sgd(nn::parameters(net), {.lr = 0.5});
        auto [model, optimizer] = fabric.setup(net, sgd);
        fabric.backward(model(ones({2, 6})).first.sum() * 0x1p-10);
        CHECK(optimizer.step());
        CHECK(equal(net.weight.detach(), full({3, 6}, 1 - 0x1p-9)));  // lr 0.5, 2 rows, scale 2
        optimizer.zero_grad();
        Tensor(net.scale * 3.0).backward();  // has nothing to do with the model's outputs
        CHECK(net.scale.grad().item<double>() == 3);
      },
      in("16-mixed"));
}

TEST_CASE("every checkpoint holds the loss scale; masters make a resumed run the uninterrupted one") {
  for (const char* const precision : {"16-mixed", "16-true", "bf16-true"})
    for_each_world([&](Communicator& ranks) {
      const SharedFolder folder(ranks);
      const bool scaled = std::string_view(precision).starts_with("16");
      const auto run = [&](int from, int to, bool resume) {
        Fabric fabric(over(ranks, in(precision)));
        std::vector<Tensor> out;
        fabric.launch([&] {
          Net net = seeded(resume ? 9 : 3);
          optim::AdamW adamw(nn::parameters(net), {.lr = 1e-3});
          auto [model, optimizer] = fabric.setup(net, adamw);
          const State state = {{"model", model}, {"optimizer", optimizer}};
          if (resume) fabric.load(folder / "half.ckpt", state);
          for (int step = from; step < to; ++step) {
            optimizer.zero_grad();
            const double factor = scaled && step == 1 ? infinite : 1.0;
            fabric.backward(mse_loss(model(rows(4 * step, 4, 6)), rows(4 * step, 4, 3)) * factor);
            optimizer.step();
          }
          if (to == 5) fabric.save(folder / "half.ckpt", state);
          out = values(net);
          if (scaled) out.push_back(full({}, fabric.precision().loss_scale(), f64));
        });
        return out;
      };
      run(0, 5, false);
      const auto resumed = run(5, 10, true);
      CHECK(equal_all(resumed, run(0, 10, false)));
      if (scaled) CHECK(resumed.back().item<double>() == 32768);
    });
}

TEST_CASE("a bf16-true run goes on in 32-true from its f32 copies, not from their roundings") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    std::vector<Tensor> rounded, masters;
    const auto step = [](Fabric& fabric, const FabricModule<Net>& model, FabricOptimizer<optim::SGD>& optimizer) {
      optimizer.zero_grad();
      fabric.backward(mse_loss(model(rows(0, 4, 6)), rows(0, 4, 3)));
      optimizer.step();
    };
    Fabric low(over(ranks, in("bf16-true")));
    low.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 1e-3});
      auto [model, optimizer] = low.setup(net, sgd);
      for (int i = 0; i < 4; ++i) step(low, model, optimizer);
      low.save(folder / "low.ckpt", {{"model", model}, {"optimizer", optimizer}});
      rounded = values(net);
      for (const NamedTensor& p : nn::parameters(net)) masters.push_back(sgd.state_dict().at("master." + p.name));
    });
    Fabric high(over(ranks));
    high.launch([&] {
      for (const bool optimizer_first : {false, true}) {
        Net net = seeded(9);
        optim::SGD sgd(nn::parameters(net));
        auto [model, optimizer] = high.setup(net, sgd);
        const std::pair<std::string, StateEntry> one{"model", model}, two{"optimizer", optimizer};
        high.load(folder / "low.ckpt", optimizer_first ? State{two, one} : State{one, two});
        for (optim::Group& group : sgd.param_groups()) group.set_lr(0);
        step(high, model, optimizer);
        CHECK(equal_all(values(net), masters));
        CHECK_FALSE(equal_all(values(net), rounded));
        CHECK_FALSE(sgd.state_dict().contains("master.first.weight"));
      }
    });
  });
}

// tanh's and the products' second derivatives; the module itself is not watched, and the penalty is part of the loss.
TEST_CASE("a gradient penalty: grad() of the module's own outputs, under autocast") {
  for_each_world([](Communicator& ranks) {
    std::vector<Tensor> expected;
    for (const char* const precision : {"32-true", "16-mixed"}) {
      Fabric fabric(over(ranks, in(precision)));
      fabric.launch([&] {
        Net net = seeded();
        optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
        auto [model, optimizer] = fabric.setup(net, sgd);
        for (int i = 0; i < 2; ++i) {
          const Parameter x(rows(4 * i, 4, 6));
          Tensor slope;
          {
            const auto scope = fabric.autocast();
            slope = loom::grad(sum(model.module()(x)), x, {}, {.create_graph = true});
          }
          optimizer.zero_grad();
          fabric.backward(mse_loss(model(rows(4 * i, 4, 6)), rows(9, 4, 3)) + sum(slope * slope) * 0.1);
          CHECK(optimizer.step());
          if (fabric.precision().needs_backward())
            CHECK(
                contains(error_of([&, &model = model] { loom::grad(sum(model(x)), x); }), "requires fabric.backward"));
        }
        if (expected.empty())
          expected = values(net);
        else
          CHECK(difference(values(net), expected) < 3e-3);
        CHECK(difference(values(net), values(seeded())) > 1e-2);
        for (const Tensor& p : values(net)) {
          const Tensor everyones = fabric.all_gather(p);
          for (int64_t r = 1; r < fabric.world_size(); ++r) CHECK(equal(everyones[r], everyones[0]));
        }
      });
    }
  });
}
