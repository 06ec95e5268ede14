// SPDX-License-Identifier: Apache-2.0
// Training through Fabric: ranks against one process, accumulation, clipping, evaluation.
#include <atomic>
#include <bit>
#include <limits>
#include <set>

#include <loom/nn/batch_norm.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

constexpr int64_t batch = 16;                                                     // of all ranks together
constexpr const char* strategies[] = {"ddp", "ddp_find_unused_parameters_true"};  // on any number of ranks

// Rank r of n has every n-th row of the batch that begins at `begin`.
std::pair<Tensor, Tensor> share(int64_t begin, int64_t n, int64_t r, DType dtype) {
  const Tensor index = arange(r, batch, n);
  return {index_select(rows(begin, batch, 6, dtype), 0, index),
          index_select(rows(begin + 7, batch, 3, dtype), 0, index)};
}

// Trains on the shares of this Fabric's ranks; the values after each 25 steps.
template <class Optimizer>
std::vector<std::vector<Tensor>> train(Fabric& fabric, const auto& make_optimizer, int steps) {
  const DType dtype = fabric.precision().dtype().value_or(f32);
  Net net = seeded();
  Optimizer own = make_optimizer(net);
  auto [model, optimizer] = fabric.setup(net, own);
  std::vector<std::vector<Tensor>> seen;
  const int64_t before = fabric.global_step();
  for (int step = 1; step <= steps; ++step) {
    const auto [x, y] = share(step * batch, fabric.world_size(), fabric.global_rank(), dtype);
    optimizer.zero_grad();
    fabric.backward(mse_loss(model(x), y));
    optimizer.step();
    if (step % 25 == 0) seen.push_back(values(net));
  }
  CHECK(fabric.global_step() - before == steps);
  return seen;
}

// In one process: the shares of `ranks` ranks one after the other, their gradients summed before each step.
std::vector<Tensor> train_on_parts(Fabric& fabric, int64_t ranks, int steps) {
  Net net = seeded();
  optim::AdamW own(nn::parameters(net), {.lr = 1e-2});
  auto [model, optimizer] = fabric.setup(net, own);
  for (int step = 1; step <= steps; ++step) {
    optimizer.zero_grad();
    for (int64_t part = 0; part < ranks; ++part) {
      const auto unsynced = fabric.no_backward_sync(model, part + 1 < ranks);
      const auto [x, y] = share(step * batch, ranks, part, f32);
      fabric.backward(mse_loss(model(x), y) / static_cast<double>(ranks));
    }
    optimizer.step();
  }
  return values(net);
}

template <class Optimizer>
double distance_from_one_process(Fabric& fabric, const auto& make_optimizer) {
  const auto ranks = train<Optimizer>(fabric, make_optimizer, 100);
  std::vector<std::vector<Tensor>> one;
  on_one([&](Fabric& alone) { one = train<Optimizer>(alone, make_optimizer, 100); },
         {.precision = fabric.options().precision});
  double worst = 0;
  for (size_t i = 0; i < one.size(); ++i) worst = std::max(worst, difference(ranks[i], one[i]));
  return worst;
}

auto sgd_with(double lr) {
  return [lr](Net& net) { return optim::SGD(nn::parameters(net), {.lr = lr, .momentum = 0.9}); };
}

// Sets gradients that are the same on all ranks; returns them in one row, in f64.
Tensor fill_gradients(Net& net, double scale = 1) {
  std::vector<Tensor> all;
  int64_t at = 0;
  for (const NamedTensor& p : nn::parameters(net)) {
    const Tensor g = rows(at, 1, p.tensor.numel(), p.tensor.dtype()).reshape(p.tensor.shape()) * scale;
    p.tensor.set_grad(g.clone());
    all.push_back(g.reshape({-1}).to(f64));
    at += 5;
  }
  return cat(all, 0);
}

Tensor gradients_of(Net& net) {
  std::vector<Tensor> all;
  for (const NamedTensor& p : nn::parameters(net)) all.push_back(p.tensor.grad().reshape({-1}).to(f64));
  return cat(all, 0);
}

// torch.nn.utils.get_total_norm.
double torch_norm(const Tensor& g, double p) {
  if (std::isinf(p)) return abs(g).max().item<double>();
  return std::pow(sum(pow(abs(g), p)).item<double>(), 1 / p);
}

}  // namespace

TEST_CASE("W ranks = one process on the whole batch: f64, AdamW and SGD") {
  for (const char* strategy : strategies)
    for_each_fabric(
        [](Fabric& fabric) {
          const auto adamw = [](Net& net) { return optim::AdamW(nn::parameters(net), {.lr = 1e-2}); };
          CHECK(distance_from_one_process<optim::AdamW>(fabric, adamw) < 1e-12);
          CHECK(distance_from_one_process<optim::SGD>(fabric, sgd_with(1e-2)) < 1e-12);
        },
        {.strategy = strategy, .precision = "64-true"});
}

TEST_CASE("W ranks = one process on the whole batch: f32") {
  for (const char* strategy : strategies)
    for_each_fabric([](Fabric& fabric) { CHECK(distance_from_one_process<optim::SGD>(fabric, sgd_with(1e-3)) < 1e-5); },
                    {.strategy = strategy});
}

// What is left between ranks and one process is the order in which a batch is summed. In the same order AdamW has
// nothing to enlarge: bit for bit where dividing by the number of ranks is exact; NCCL's order counts from 3 ranks on.
TEST_CASE("2 and 4 ranks = one process that accumulates their shares: f32, AdamW, bit for bit") {
  for_each_fabric([](Fabric& fabric) {
    if (!std::has_single_bit(static_cast<unsigned>(fabric.world_size()))) return;
    if (fabric.world_size() > 2 && !sums_in_rank_order()) return;
    const auto adamw = [](Net& net) { return optim::AdamW(nn::parameters(net), {.lr = 1e-2}); };
    const auto ranks = train<optim::AdamW>(fabric, adamw, 100);
    on_one([&](Fabric& alone) { CHECK(equal_all(ranks.back(), train_on_parts(alone, fabric.world_size(), 100))); });
  });
}

TEST_CASE("no_backward_sync: accumulated micro-batches = one big batch") {
  for_each_fabric(
      [](Fabric& fabric) {
        const int64_t n = fabric.world_size(), r = fabric.global_rank();
        Net net = seeded(), whole = seeded();
        nn::to(whole, f64);
        auto model = fabric.setup(net);
        constexpr int64_t parts = 3;
        for (int64_t i = 0; i < parts; ++i) {
          const auto unsynced = fabric.no_backward_sync(model, i + 1 < parts);
          const auto [x, y] = share(i * batch, n, r, f64);
          fabric.backward(mse_loss(model(x), y) / static_cast<double>(parts));
          if (i == 0 && n > 1) {  // local so far
            const Tensor all = fabric.all_gather(net.first.weight.grad());
            CHECK_FALSE(equal(all[0], all[1]));
          }
        }
        for (int64_t i = 0; i < parts; ++i)
          (mse_loss(whole(rows(i * batch, batch, 6, f64)), rows(i * batch + 7, batch, 3, f64)) /
           static_cast<double>(parts))
              .backward();
        CHECK(abs(gradients_of(net) - gradients_of(whole)).max().item<double>() < 1e-14);
        const Tensor all = fabric.all_gather(net.first.weight.grad());
        for (int64_t i = 1; i < n; ++i) CHECK(equal(all[0], all[i]));
      },
      {.precision = "64-true"});
}

TEST_CASE("backward: a cotangent, a kept graph, second order") {
  for_each_fabric(
      [](Fabric& fabric) {
        Net net = seeded();
        auto model = fabric.setup(net);
        const Tensor out = model(rows(0, 2, 6));
        fabric.backward(out, ones({2, 3}, f64) * 2.0, true);
        const Tensor first = net.second.bias.grad().clone();
        CHECK(equal(first, full({3}, 4.0, f64)));
        CHECK(contains(error_of([&] { fabric.backward(model(rows(0, 2, 6))); }), "has shape [2, 3]"));
      },
      {.precision = "64-true"});
  on_one([](Fabric& fabric) {
    Net net = seeded();
    auto model = fabric.setup(net);
    fabric.backward(sum(model(rows(0, 2, 6))), {}, false, true);
    CHECK(net.first.weight.grad().requires_grad());
    nn::zero_grad(net);
  });
}

TEST_CASE("clip_gradients: the norm, as torch.nn.utils.clip_grad_norm_") {
  for_each_fabric([](Fabric& fabric) {
    Net net = seeded();
    optim::SGD sgd(nn::parameters(net));
    auto [model, optimizer] = fabric.setup(net, sgd);
    for (const double p : {1.0, 2.0, 3.0, std::numeric_limits<double>::infinity()})
      for (const double factor : {0.1, 2.0}) {  // clips, and does not
        const Tensor g = fill_gradients(net);
        const double expected = torch_norm(g, p), max_norm = factor * expected;
        const auto norm =
            fabric.clip_gradients(model, optimizer, {.max_norm = max_norm, .norm_type = p}).item<double>();
        CHECK(norm == doctest::Approx(expected).epsilon(1e-12));
        const double scale = std::min(1.0, max_norm / (expected + 1e-6));
        CHECK(abs(gradients_of(net) - g * scale).max().item<double>() < 1e-6);
        if (factor > 1) CHECK(equal(gradients_of(net), g));
      }
  });
}

TEST_CASE("clip_gradients: values, and what it refuses") {
  for_each_fabric([](Fabric& fabric) {
    Net net = seeded();
    optim::SGD sgd(nn::parameters(net));
    auto [model, optimizer] = fabric.setup(net, sgd);
    const Tensor g = fill_gradients(net);
    CHECK(fabric.clip_gradients(model, optimizer, {.clip_val = 0.25}).item<double>() == 0);
    CHECK(equal(gradients_of(net), clamp(g, -0.25, 0.25)));
    const auto error = [&](const ClipOptions& options) {
      return error_of([&] {
        fabric.clip_gradients(model, optimizer, options);
        synchronize(fabric.device());  // a GPU tells of its norm when it is waited for, not of what norm it is
      });
    };
    const bool on_gpu = fabric.device().kind == Device::cuda;
    CHECK(error({.clip_val = 1, .max_norm = 1}) ==
          "clip_gradients: only one of clip_val and max_norm can be set; each is an algorithm of its own");
    CHECK(error({}) == "clip_gradients: set clip_val or max_norm");
    CHECK(error({.clip_val = -1}) == "clip_gradients: clip_val is -1, expected 0 or more");
    CHECK(error({.max_norm = -0.5}) == "clip_gradients: max_norm is -0.5, expected 0 or more");
    CHECK(error({.max_norm = 1, .norm_type = 0}) == "clip_gradients: norm_type is 0, expected more than 0");
    net.second.bias.grad().fill_(std::numeric_limits<double>::quiet_NaN());
    const Tensor before = net.first.bias.grad().clone();
    CHECK(error({.max_norm = 1}) == str("clip_gradients: the norm ", on_gpu ? "" : "of order 2 ",
                                        "of the gradients is ", on_gpu ? "not finite" : "nan",
                                        ", so they cannot be scaled; set error_if_nonfinite=false to scale anyway"));
    CHECK(equal(net.first.bias.grad(), before));
    const Tensor norm = fabric.clip_gradients(model, optimizer, {.max_norm = 1, .error_if_nonfinite = false});
    CHECK(std::isnan(norm.item<double>()));
    CHECK(std::isnan(net.first.bias.grad().sum().item<double>()));
    net.second.bias.grad().fill_(std::numeric_limits<double>::infinity());
    net.first.bias.grad().fill_(1);
    CHECK(contains(error({.max_norm = 1, .norm_type = std::numeric_limits<double>::infinity()}),
                   on_gpu ? "is not finite" : "the norm of order inf of the gradients is "));
    sgd.zero_grad();
    CHECK(fabric.clip_gradients(model, optimizer, {.max_norm = 1}).item<double>() == 0);  // none to clip
  });
}

TEST_CASE("clipped ranks = one clipped process") {
  for_each_fabric(
      [](Fabric& fabric) {
        Net net = seeded(), whole = seeded();
        nn::to(whole, f64);
        optim::SGD sgd(nn::parameters(net)), other(nn::parameters(whole));
        auto [model, optimizer] = fabric.setup(net, sgd);
        const auto [x, y] = share(0, fabric.world_size(), fabric.global_rank(), f64);
        fabric.backward(mse_loss(model(x), y));
        mse_loss(whole(rows(0, batch, 6, f64)), rows(7, batch, 3, f64)).backward();
        const auto norm = fabric.clip_gradients(model, optimizer, {.max_norm = 0.01}).item<double>();
        const Tensor g = gradients_of(whole);
        CHECK(norm == doctest::Approx(torch_norm(g, 2)).epsilon(1e-12));
        CHECK(abs(gradients_of(net) - g * (0.01 / (norm + 1e-6))).max().item<double>() < 1e-14);
      },
      {.precision = "64-true"});
}

TEST_CASE("step with a closure returns its loss and counts") {
  for_each_fabric([](Fabric& fabric) {
    Net net = seeded();
    optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
    auto [model, optimizer] = fabric.setup(net, sgd);
    const auto closure = [&, &model = model, &optimizer = optimizer] {
      optimizer.zero_grad();
      Tensor loss = mse_loss(model(rows(0, 4, 6)), rows(7, 4, 3));
      fabric.backward(loss);
      return loss;
    };
    const double first = optimizer.step(closure).template item<double>();
    CHECK(optimizer.step(closure).template item<double>() < first);
    CHECK(fabric.global_step() == 2);
  });
}

TEST_CASE("training loaders share every epoch's samples; exact ones count each sample once") {
  for_each_fabric([](Fabric& fabric) {
    constexpr int64_t count = 37;
    const data::TensorDataset numbers(arange(count));
    const auto seen = [&](auto& loader) {
      std::vector<Tensor> mine;
      for (auto [x] : loader) mine.push_back(x);
      CHECK(std::ssize(mine) == loader.size());
      return cat(fabric.all_gather_ragged(cat(mine, 0)), 0);
    };
    auto exact = fabric.setup_dataloaders(data::DataLoader(numbers, {.batch_size = 4}), {.exact = true});
    CHECK(equal(std::get<0>(sort(seen(exact))), arange(count)));
    auto train = fabric.setup_dataloaders(data::DataLoader(numbers, {.batch_size = 4, .shuffle = true, .seed = 5}));
    const int64_t n = fabric.world_size(), padded = (count + n - 1) / n * n;
    const Tensor first = seen(train), second = seen(train);
    CHECK(first.size(0) == padded);
    CHECK_FALSE(equal(first, second));
    const auto sorted = std::get<0>(sort(first)).to_vector<int64_t>();
    CHECK(std::set<int64_t>(sorted.begin(), sorted.end()).size() == count);
    seed_everything(uint64_t{100} + static_cast<uint64_t>(fabric.global_rank()));  // must not cost samples
    auto unequal = fabric.setup_dataloaders(data::DataLoader(numbers, {.shuffle = true}), {.exact = true});
    CHECK(equal(std::get<0>(sort(seen(unequal))), arange(count)));
    auto whole =
        fabric.setup_dataloaders(data::DataLoader(numbers, {.batch_size = 4}), {.use_distributed_sampler = false});
    CHECK(seen(whole).size(0) == count * n);
  });
}

TEST_CASE("setup_dataloaders: loaders that differ by rank are an error on every rank") {
  for_each_fabric([](Fabric& fabric) {
    const bool last = fabric.global_rank() == fabric.world_size() - 1;
    const data::DataLoader mine(data::TensorDataset(arange(last ? 14 : 10)), {.batch_size = 2, .shuffle = true});
    const std::string text = error_of([&] { fabric.setup_dataloaders(mine); });
    CHECK(text == (fabric.world_size() == 1
                       ? ""
                       : str("setup_dataloaders: the ranks' loaders differ: rank 0 has 10 samples, shuffled, rank ",
                             fabric.world_size() - 1, " 14 samples, shuffled")));
    auto own = fabric.setup_dataloaders(mine, {.use_distributed_sampler = false});  // each rank's own samples
    CHECK(own.size() == (last ? 7 : 5));
  });
}

namespace {

struct Normed {
  nn::Linear first{6, 8};
  nn::BatchNorm1d norm{8};
  nn::Linear second{8, 3};
  Tensor operator()(const Tensor& x) const { return second(norm(first(x))); }
  LOOM_MEMBERS(first, norm, second)
};

}  // namespace

TEST_CASE("no collective in forwards of a module in eval mode: rank 0 may evaluate alone") {
  for_each_fabric([](Fabric& fabric) {
    auto net = seeded<Normed>();
    optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
    auto [model, optimizer] = fabric.setup(net, sgd);
    std::atomic<int> collectives = 0;
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_grad();
      fabric.backward(mse_loss(model(rows(4 * fabric.global_rank(), 4, 6)), rows(0, 4, 3)));
      optimizer.step();
      fabric.barrier();
      fabric.communicator().set_observer([&](const Collective&) { ++collectives; });
      nn::eval(model);
      if (fabric.is_global_zero()) model(rows(0, 2, 6));
      nn::train(model);
      fabric.communicator().set_observer({});
      CHECK(collectives == 0);
    }
    const Tensor all = fabric.all_gather(net.first.weight.detach());
    for (int64_t r = 1; r < fabric.world_size(); ++r) CHECK(equal(all[0], all[r]));
  });
}
