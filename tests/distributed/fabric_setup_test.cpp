// SPDX-License-Identifier: Apache-2.0
// What Fabric's constructor, launch and setup do, and what they refuse.
#include <cstdlib>

#include <loom/accelerators/cuda.h>
#include <loom/accelerators/machine.h>
#include <loom/accelerators/memory.h>
#include <loom/fabric/strategies/ddp.h>
#include <loom/nn/dropout.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

struct Dropping {
  nn::Linear fc{6, 3};
  nn::Dropout drop{0.5};
  Tensor operator()(const Tensor& x) const { return drop(fc(x)); }
  std::pair<Tensor, double> twice(const Tensor& x, double factor) const { return {fc(x) * factor, factor}; }
  void shift(double by) {
    const NoGrad off;
    fc.bias.add_(by);
  }
  LOOM_MEMBERS(fc, drop)
};

struct Both {
  nn::Linear fc{6, 3};
  Buffer count{tensor({1, 2}, i64)};
  Tensor operator()(const Tensor& x, const std::vector<Tensor>& more, int64_t scale) const {
    CHECK(x.dtype() == f64);
    CHECK(more[0].dtype() == f64);
    CHECK(more[1].dtype() == i64);
    CHECK_FALSE(more[2].defined());
    return fc(x) * static_cast<double>(scale) + more[0];
  }
  LOOM_MEMBERS(fc, count)
};

// The text of launching with these options on these ranks.
std::string launch_error(Communicator& ranks, const FabricOptions& options) {
  Fabric fabric(over(ranks, options));
  return error_of([&] { fabric.launch(); });
}

}  // namespace

TEST_CASE("launch joins the ranks and places this one") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(over(ranks));
    CHECK(fabric.world_size() == 1);
    CHECK(fabric.is_global_zero());
    bool ran = false;
    fabric.launch([&] {
      ran = true;
      CHECK(fabric.world_size() == ranks.size());
      CHECK(fabric.global_rank() == ranks.rank());
      CHECK(fabric.local_rank() == ranks.rank());  // one machine
      CHECK(fabric.node_rank() == 0);
      CHECK(fabric.is_global_zero() == (ranks.rank() == 0));
      CHECK(fabric.device() == default_device());
      CHECK(fabric.strategy().name() == (ranks.size() > 1 ? "ddp" : "single"));
      CHECK(fabric.precision().name() == "32-true");
      CHECK(&fabric.communicator() == &ranks);
      CHECK(context().data_rank == ranks.rank());
    });
    CHECK(ran);
    fabric.launch([&] { CHECK(fabric.world_size() == ranks.size()); });  // again: on the same ranks
    CHECK_THROWS_WITH(fabric.launch([] { fail("mine"); }), "mine");      // errors pass through
  });
}

TEST_CASE("several Fabrics, one after the other and at the same time") {
  for_each_world([](Communicator& ranks) {
    for (int i = 0; i < 3; ++i) {
      Fabric first(over(ranks)), second(over(ranks));
      first.launch([&] {
        second.launch([&] { CHECK(second.all_reduce(1.0, "sum") == ranks.size()); });
        CHECK(first.all_reduce(1.0, "sum") == ranks.size());
      });
    }
  });
}

TEST_CASE("unknown names are refused on every rank, with what there is") {
  for_each_world([](Communicator& ranks) {
    CHECK(launch_error(ranks, {.strategy = "deepspeed"}) ==
          "unknown strategy 'deepspeed'; available: auto, single, ddp, ddp_find_unused_parameters_true");
    CHECK(launch_error(ranks, {.accelerator = "tpu"}) ==
          str("unknown accelerator 'tpu'; available: auto, cpu", device_count(Device::cuda) > 0 ? ", cuda" : ""));
    CHECK(
        launch_error(ranks, {.precision = "8-true"}) ==
        "unknown precision '8-true'; available: 64-true, 32-true, 16-true, bf16-true, 16-mixed, bf16-mixed, fp8-mixed");
    FabricOptions twice{.strategy = "ddp"};
    twice.plugins.strategy = std::make_shared<DdpStrategy>();
    CHECK(launch_error(ranks, twice) == "received both strategy='ddp' and plugins.strategy; choose one");
    twice = {.precision = "16"};
    twice.plugins.precision = std::make_shared<FullPrecision>();
    CHECK(launch_error(ranks, twice) == "received both precision='16' and plugins.precision; choose one");
    if (ranks.size() > 1)
      CHECK(launch_error(ranks, {.strategy = "single"}) ==
            str("strategy 'single' runs on one rank, there are ", ranks.size(), "; use 'ddp' or 'auto'"));
    if (device_count(Device::cuda) == 0)
      CHECK(launch_error(ranks, {.accelerator = "gpu"}) ==
            str("accelerator 'gpu': ", cuda_description(), "; use 'cpu' or 'auto'"));
  });
}

TEST_CASE("devices and num_nodes that are not what the launcher gave are refused") {
  for_each_world([](Communicator& ranks) {
    const int n = ranks.size();
    const std::string expected = ": expected \"auto\" or a number of at least 1";
    CHECK(launch_error(ranks, {.devices = 0}) == "devices=0" + expected);
    CHECK(launch_error(ranks, {.devices = -1}) == "devices=-1" + expected);
    for (const char* text : {"two", "-1", "2.5", "", " 1", "0", "99999999999"})
      CHECK(launch_error(ranks, {.devices = text}) == str("devices='", text, "'") + expected);
    CHECK(launch_error(ranks, {.devices = n + 1}) == str("devices=", n + 1, ": the launcher started ", n,
                                                         n == 1 ? " rank" : " ranks", " on this node; start with -n ",
                                                         n + 1, " or use devices=\"auto\""));
    CHECK(launch_error(ranks, {.num_nodes = 0}) == "num_nodes=0: expected a number of at least 1");
    CHECK(launch_error(ranks, {.num_nodes = 2}) == "num_nodes=2: the launcher started ranks on 1 node");
    CHECK(launch_error(ranks, {.devices = n}).empty());
    CHECK(launch_error(ranks, {.devices = std::to_string(n), .num_nodes = 1}).empty());
  });
}

TEST_CASE("what is wrong on one rank alone is raised on all") {
  for_each_world([](Communicator& ranks) {
    const int last = ranks.size() - 1;
    const std::string mine = ranks.rank() == last ? "128-true" : "32-true";
    CHECK(contains(launch_error(ranks, {.precision = mine}), "unknown precision '128-true'"));
  });
}

TEST_CASE("before launch, methods that need ranks say so") {
  Fabric fabric;
  Net net;
  optim::SGD sgd(nn::parameters(net));
  const auto text = [](const char* what) {
    return str(what, ": call fabric.launch(...) first; what uses ranks or devices goes inside");
  };
  CHECK(error_of([&] { fabric.setup(net, sgd); }) == text("setup"));
  CHECK(error_of([&] { fabric.setup_module(net); }) == text("setup"));
  CHECK(error_of([&] { fabric.setup_optimizers(sgd); }) == text("setup_optimizers"));
  CHECK(error_of([&] { fabric.setup_dataloaders(data::DataLoader(samples(4))); }) == text("setup_dataloaders"));
  CHECK(error_of([&] { fabric.all_reduce(1.0); }) == text("all_reduce"));
  CHECK(error_of([&] { fabric.all_gather(ones({1})); }) == text("all_gather"));
  CHECK(error_of([&] { fabric.all_gather_ragged(ones({1})); }) == text("all_gather_ragged"));
  CHECK(error_of([&] { fabric.broadcast("x"); }) == text("broadcast"));
  CHECK(error_of([&] { fabric.barrier(); }) == text("barrier"));
  CHECK(error_of([&] { fabric.rank_zero_first([] {}); }) == text("rank_zero_first"));
  CHECK(error_of([&] { fabric.save("x", {}); }) == text("save"));
  CHECK(error_of([&] { fabric.load("x", {}); }) == text("load"));
  CHECK(error_of([&] { fabric.load_raw("x", net); }) == text("load_raw"));
  CHECK(error_of([&] { fabric.strategy(); }) == text("strategy"));
  CHECK(error_of([&] { fabric.communicator(); }) == text("communicator"));
}

TEST_CASE("a launch that failed leaves a Fabric that is not launched") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(over(ranks, {.precision = "4-true"}));
    CHECK(
        error_of([&] { fabric.launch(); }) ==
        "unknown precision '4-true'; available: 64-true, 32-true, 16-true, bf16-true, 16-mixed, bf16-mixed, fp8-mixed");
    CHECK(contains(error_of([&] { fabric.barrier(); }), "call fabric.launch"));
  });
}

TEST_CASE("setup: one module, with optimizers, apart; all are the user's own objects") {
  for_each_fabric([](Fabric& fabric) {
    Net net = seeded(), other = seeded();
    optim::AdamW adamw(nn::parameters(net));
    optim::SGD sgd(nn::parameters(other));
    const void* weight = net.first.weight.body_pointer().get();
    {
      auto [model, optimizer] = fabric.setup(net, adamw);
      static_assert(is_fabric_wrapper<decltype(model)> && is_fabric_wrapper<decltype(optimizer)>);
      CHECK(&model.module() == &net);
      CHECK(&optimizer.optimizer() == &adamw);
      CHECK(nn::parameters(model)[0].tensor.body_pointer().get() == weight);
      CHECK(model->first.weight.body_pointer().get() == weight);
    }
    auto model = fabric.setup(other);
    auto [one, two] = fabric.setup_optimizers(sgd, adamw);
    CHECK(&two.optimizer() == &adamw);
    auto alone = fabric.setup_optimizers(sgd);
    CHECK(alone->param_groups().size() == 1);
    auto [module, first, second] = fabric.setup(net, sgd, adamw);
    CHECK(&first.optimizer() == &sgd);
    CHECK(&second.optimizer() == &adamw);
    auto [a, b] = fabric.setup_dataloaders(data::DataLoader(samples(8), {.batch_size = 2}),
                                           data::DataLoader(samples(8), {.batch_size = 1}));
    const int64_t n = fabric.world_size();
    CHECK(a.size() == (8 / n + 1) / 2);
    CHECK(b.size() == 8 / n);
  });
}

TEST_CASE("setup gives every rank rank 0's values") {
  for_each_fabric([](Fabric& fabric) {
    Net net = seeded(uint64_t{10} + static_cast<uint64_t>(fabric.global_rank())), zero = seeded(10);
    auto model = fabric.setup(net);
    CHECK(equal_all(values(model), values(zero)));
  });
}

TEST_CASE("a wrapped module is a module: parameters, state, train and eval, other methods") {
  for_each_fabric([](Fabric& fabric) {
    Dropping net;
    auto model = fabric.setup(net);
    CHECK(nn::parameters(model).size() == 2);
    CHECK(nn::parameters(model)[1].name == "fc.bias");
    CHECK(nn::state_dict(model)[0].name == "fc.weight");
    CHECK(nn::parameter_count(model) == 21);
    nn::eval(model);
    CHECK_FALSE(net.drop.training);
    const Tensor x = rows(0, 4, 6);
    CHECK(equal(model(x), net.fc(x)));
    nn::train(model);
    CHECK(net.drop.training);
    const auto [y, factor] = model.call(&Dropping::twice, x, 2.0);
    CHECK(equal(y, net.fc(x) * 2.0));
    CHECK(factor == 2.0);
    const Tensor before = net.fc.bias.detach().clone();
    model.call(&Dropping::shift, 1.0);
    CHECK(equal(net.fc.bias.detach(), before + 1.0));
  });
}

TEST_CASE("64-true converts the module and floating inputs, and outputs stay as computed") {
  for_each_fabric(
      [](Fabric& fabric) {
        Both net;
        optim::AdamW adamw(nn::parameters(net));
        auto [model, optimizer] = fabric.setup(net, adamw);
        CHECK(net.fc.weight.dtype() == f64);
        CHECK(net.count.dtype() == i64);
        const Tensor out = model(rows(0, 2, 6), std::vector<Tensor>{ones({3}), arange(3), Tensor()}, int64_t{2});
        CHECK(out.dtype() == f64);
        fabric.backward(out.sum());
        CHECK(net.fc.weight.grad().dtype() == f64);
        optimizer.step();
        CHECK(adamw.state_dict().at("exp_avg.fc.weight").dtype() == f64);
        CHECK(fabric.precision().name() == "64-true");
      },
      {.precision = "64"});
}

TEST_CASE("to_device moves tensors and modules") {
  for_each_fabric([](Fabric& fabric) {
    Net net;
    CHECK(&fabric.to_device(net) == &net);
    CHECK(fabric.to_device(ones({2})).device() == fabric.device());
  });
}

TEST_CASE("seed_everything: the same initial values on every rank, other draws for dropout") {
  for_each_fabric([](Fabric& fabric) {
    CHECK(Fabric::seed_everything(11) == 11);
    const Tensor x = randn({5});
    const Tensor all = fabric.all_gather(x);
    for (int64_t r = 0; r < fabric.world_size(); ++r) CHECK(equal(all[r], x));
    const Tensor dropped = fabric.all_gather(dropout(ones({64}), 0.5));
    if (fabric.world_size() > 1) CHECK_FALSE(equal(dropped[0], dropped[1]));
    CHECK(seed_everything(11) == 11);
    CHECK(equal(randn({5}), x));
  });
}

TEST_CASE("the ranks of a node share what their caches may keep") {
  for_each_world([](Communicator& ranks) {
    const char* const here = std::getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    const int64_t processes = here ? std::stoi(here) : 1;
    double sum = static_cast<double>(memory_stats().cache_limit);
    ranks.all_reduce(view_over(&sum, DType::f64, {1})).wait();
    if (std::getenv("LOOM_CACHE_LIMIT") == nullptr)
      CHECK(sum / ranks.size() * static_cast<double>(processes) <= static_cast<double>(usable_memory()) / 4);
  });
}
