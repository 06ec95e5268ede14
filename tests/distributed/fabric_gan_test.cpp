// SPDX-License-Identifier: Apache-2.0
// Two modules and two optimizers in one loop, the discriminator frozen during the generator's step.
#include <loom/fabric/strategies/ddp.h>
#include <loom/nn/batch_norm.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

constexpr int64_t batch = 16;  // of all ranks together

struct GeneratorNet {
  nn::Linear first{3, 8}, second{8, 6};
  Tensor operator()(const Tensor& z) const { return second(tanh(first(z))); }
  LOOM_MEMBERS(first, second)
};

struct DiscriminatorNet {
  nn::Linear first{6, 8}, second{8, 1};
  Tensor operator()(const Tensor& x) const { return second(tanh(first(x))); }
  LOOM_MEMBERS(first, second)
};

// Its buffers change in every forward, also while it is frozen.
struct Normed {
  nn::Linear first{6, 8}, second{8, 1};
  nn::BatchNorm1d norm{8};
  Tensor operator()(const Tensor& x) const { return second(tanh(norm(first(x)))); }
  LOOM_MEMBERS(first, second, norm)
};

Tensor verdict(const Tensor& logits, double wanted) {
  return binary_cross_entropy_with_logits(logits, full(logits.shape(), wanted, logits.dtype()));
}

struct Trained {
  std::vector<Tensor> values;    // of both models
  std::vector<double> d_losses;  // of this rank
};

// Rank r of n has every n-th row of a step's batch.
template <class D = DiscriminatorNet>
Trained train(Fabric& fabric, int steps, int frozen_every = 1) {
  const DType dtype = fabric.precision().dtype().value_or(f32);
  auto g_net = seeded<GeneratorNet>();
  auto d_net = seeded<D>(5);
  optim::Adam g_adam(nn::parameters(g_net), {.lr = 1e-2}), d_adam(nn::parameters(d_net), {.lr = 1e-2});
  auto [g, g_optimizer] = fabric.setup(g_net, g_adam);
  auto [d, d_optimizer] = fabric.setup(d_net, d_adam);
  Trained out;
  for (int step = 0; step < steps; ++step) {
    const Tensor mine = arange(fabric.global_rank(), batch, fabric.world_size());
    const Tensor real = index_select(rows(step * batch, batch, 6, dtype), 0, mine);
    const Tensor noise = index_select(rows(step * batch + 9000, batch, 3, dtype), 0, mine);

    d_optimizer.zero_grad();
    const Tensor d_loss = verdict(d(real), 1) + verdict(d(g(noise).detach()), 0);
    fabric.backward(d_loss);
    d_optimizer.step();
    out.d_losses.push_back(d_loss.template item<double>());

    const bool freeze = step % frozen_every == 0;
    if (freeze) nn::freeze(d_net);
    g_optimizer.zero_grad();
    fabric.backward(verdict(d(g(noise)), 1));
    g_optimizer.step();
    if (freeze) nn::freeze(d_net, false);
  }
  out.values = values(g_net);
  for (const Tensor& v : values(d_net)) out.values.push_back(v);
  return out;
}

Trained train_alone(const Fabric& fabric, int steps) {
  Trained out;
  on_one([&](Fabric& alone) { out = train(alone, steps); }, {.precision = fabric.options().precision});
  return out;
}

void check_alike(Fabric& fabric, const std::vector<Tensor>& tensors) {
  for (const Tensor& t : tensors) {
    const Tensor all = fabric.all_gather(t);
    for (int64_t r = 1; r < fabric.world_size(); ++r) CHECK(equal(all[r], all[0]));
  }
}

std::vector<FabricOptions> ddp_variants(const std::string& precision) {
  const auto with = [&](const DdpOptions& options) {
    FabricOptions out{.precision = precision};
    out.plugins.strategy = std::make_shared<DdpStrategy>(options);
    return out;
  };
  const auto warn = [](const std::string&) {};
  return {with({}),
          with({.bucket_cap_mb = 1e-5}),
          with({.find_unused_parameters = true, .warn = warn}),
          with({.static_graph = true}),
          with({.find_unused_parameters = true, .static_graph = true, .warn = warn}),
          with({.gradient_as_bucket_view = false})};
}

}  // namespace

TEST_CASE("a GAN: ranks are equal, and equal one process on the joint batch") {
  for (const FabricOptions& options : ddp_variants("64-true"))
    for_each_fabric(
        [](Fabric& fabric) {
          const auto ranks = train(fabric, 30), one = train_alone(fabric, 30);
          check_alike(fabric, ranks.values);
          CHECK(difference(ranks.values, one.values) < 1e-12);
          const double loss = fabric.all_reduce(tensor({ranks.d_losses.back()}, f64)).item<double>();
          CHECK(loss == doctest::Approx(one.d_losses.back()).epsilon(1e-11));
        },
        options);
}

// What an unfrozen discriminator gets in the generator's step is zeroed before its own.
TEST_CASE("a GAN: freezing in each step, in every other, in the first are the same training") {
  for (const char* strategy : {"ddp", "ddp_find_unused_parameters_true"})
    for_each_fabric(
        [](Fabric& fabric) {
          const auto each = train(fabric, 12);
          CHECK(equal_all(train(fabric, 12, 2).values, each.values));
          CHECK(equal_all(train(fabric, 12, 100).values, each.values));
        },
        {.strategy = strategy});
}

TEST_CASE("a GAN: buffers and mixed precisions") {
  for (const char* precision : {"32-true", "bf16-mixed", "16-mixed", "16-true"})
    for_each_fabric(
        [](Fabric& fabric) {
          const auto trained = train<DiscriminatorNet>(fabric, 10);
          check_alike(fabric, trained.values);
          train<Normed>(fabric, 5);
        },
        {.strategy = "ddp", .precision = precision});
}

TEST_CASE("a GAN: uneven inputs") {
  for_each_fabric(
      [](Fabric& fabric) {
        auto g_net = seeded<GeneratorNet>();
        auto d_net = seeded<Normed>(5);
        optim::SGD g_sgd(nn::parameters(g_net), {.lr = 0.1}), d_sgd(nn::parameters(d_net), {.lr = 0.1});
        auto [g, g_optimizer] = fabric.setup(g_net, g_sgd);
        auto [d, d_optimizer] = fabric.setup(d_net, d_sgd);
        fabric.join(std::tie(g, d), [&, &g = g, &d = d, &g_optimizer = g_optimizer, &d_optimizer = d_optimizer] {
          for (int64_t step = 0; step < 3 + fabric.global_rank(); ++step) {
            const Tensor noise = rows(9 * step + fabric.global_rank(), 4, 3);
            d_optimizer.zero_grad();
            fabric.backward(verdict(d(rows(5 * step, 4, 6)), 1) + verdict(d(g(noise).detach()), 0));
            d_optimizer.step();
            nn::freeze(d_net);
            g_optimizer.zero_grad();
            fabric.backward(verdict(d(g(noise)), 1));
            g_optimizer.step();
            nn::freeze(d_net, false);
          }
        });
        check_alike(fabric, values(g_net));
        check_alike(fabric, values(d_net));
        CHECK(fabric.global_step() == 2 * (2 + fabric.world_size()));
      },
      {.strategy = "ddp"});
}
