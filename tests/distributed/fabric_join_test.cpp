// SPDX-License-Identifier: Apache-2.0
// Uneven inputs and compressed gradients through Fabric.
#include <loom/distributed/default_hooks.h>
#include <loom/distributed/power_sgd.h>
#include <loom/fabric/state_broadcast.h>
#include <loom/fabric/strategies/ddp.h>
#include <loom/nn/optim/decay.h>
#include <loom/tensor/context.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

Tensor loss_of(const FabricModule<Net>& model, int64_t begin) {
  return mse_loss(model(rows(begin, 4, 6)), rows(begin + 9, 4, 3));
}

std::vector<Tensor> gradients(const Net& net) {
  std::vector<Tensor> out;
  for (const NamedTensor& p : nn::parameters(net))
    if (p.tensor.grad().defined()) out.push_back(p.tensor.grad());
  return out;
}

// Asks all ranks before each step, as loss scaling does, and remembers how many there were.
class Asking final : public Precision {
 public:
  std::string_view name() const override { return "asking"; }
  optim::StepOutcome step(OptimizerSync& optimizer) override {
    ++asked;
    const Tensor found = zeros({});
    optimizer.agree(found);
    return optimizer.step(found);
  }
  StateDict state_dict() const override { return {{}, {{"asked", std::to_string(asked)}}}; }
  void load_state_dict(const StateDict& saved) override { asked = text_to_integer<int>(saved.value("asked")); }
  int asked = 0;
};

class Alone final : public Strategy {
 public:
  std::string_view name() const override { return "alone"; }
  std::unique_ptr<ModuleSync> setup_module(Communicator&, std::vector<NamedTensor>, std::vector<NamedTensor>) override {
    return std::make_unique<ModuleSync>();
  }
};

FabricOptions under_ddp(Communicator& ranks, std::shared_ptr<CommHook> hook) {
  FabricOptions options = over(ranks);
  options.plugins.strategy = std::make_shared<DdpStrategy>(DdpOptions{.comm_hook = std::move(hook)});
  return options;
}

}  // namespace

TEST_CASE("join: afterwards ranks hold the same model, optimizer, scheduler, step and random numbers") {
  for_each_world([](Communicator& ranks) {
    const auto precision = std::make_shared<Asking>();
    FabricOptions options = over(ranks);
    options.plugins.precision = precision;
    Fabric fabric(options);
    fabric.launch([&] {
      Net net = seeded();
      optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
      optim::StepLR scheduler(adamw, 2, 0.5);
      auto [model, optimizer] = fabric.setup(net, adamw);
      const auto step = [&, &model = model, &optimizer = optimizer](int i) {
        optimizer.zero_grad();
        const Tensor loss = loss_of(model, 50 * i + 4 * fabric.global_rank());
        fabric.backward(loss + rand({1}).sum() * 0.0);
        fabric.clip_gradients(model, optimizer, {.max_norm = 1});
        CHECK(optimizer.step());
        scheduler.step();
      };
      const int last = 1 + 2 * (fabric.world_size() - 1);
      for (int epoch = 0; epoch < 2; ++epoch) {
        const int batches =
            1 + 2 * (epoch == 0 ? fabric.global_rank() : fabric.world_size() - 1 - fabric.global_rank());
        const Joined joined = fabric.join(model,
                                          [&] {
                                            for (int i = 0; i < batches; ++i) step(i);
                                          },
                                          {.state = {{"scheduler", scheduler}}});
        CHECK(joined.uneven == (fabric.world_size() > 1));
        CHECK(alike(fabric, values(net)));
        CHECK(alike(fabric, values(adamw.state_dict())));
        CHECK(alike(fabric, values(scheduler.state_dict())));
        CHECK(fabric.global_step() == last * (epoch + 1));
        CHECK(precision->asked == last * (epoch + 1));
        CHECK(alike(fabric, {full({}, static_cast<double>(context().generator.offset), i64)}));
      }
      for (int i = 0; i < 3; ++i) step(i);  // without join: nobody has missed anything
      CHECK(alike(fabric, values(net)));
    });
  });
}

TEST_CASE("join: loss scaling; an overflow on a rank with data is skipped by those that have some") {
  for_each_world([](Communicator& ranks) {
    FabricOptions options = over(ranks);
    options.precision = "16-mixed";
    Fabric fabric(options);
    fabric.launch([&] {
      Net net = seeded();
      optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = fabric.setup(net, adamw);
      int taken = 0;
      for (int epoch = 0; epoch < 2; ++epoch) {
        const int batches = fabric.global_rank() == 0 ? 2 : 5;
        fabric.join(model, [&, &model = model, &optimizer = optimizer] {
          for (int i = 0; i < batches; ++i) {
            optimizer.zero_grad();
            const bool overflows = i == batches - 1 && fabric.global_rank() == fabric.world_size() - 1;
            fabric.backward(loss_of(model, 4 * i) * (overflows ? 1e30 : 1.0));
            taken += optimizer.step() ? 1 : 0;
            CHECK(fabric.global_step() == taken);
          }
        });
        taken = (epoch + 1) * (fabric.world_size() == 1 ? 1 : 4);
        CHECK(fabric.global_step() == taken);
        CHECK(fabric.precision().loss_scale() == 65536 / (epoch == 0 ? 2 : 4));
        CHECK(alike(fabric, values(net)));
        CHECK(alike(fabric, values(adamw.state_dict())));
      }
    });
  });
}

// Joins, skips a step, joins again with the first rank last, and goes on.
void join_twice(Communicator& ranks, const std::string& precision, double momentum) {
  Fabric fabric(over(ranks, {.precision = precision}));
  fabric.launch([&] {
    Net net = seeded();
    optim::SGD sgd(nn::parameters(net), {.lr = 0.001, .momentum = momentum});
    auto [model, optimizer] = fabric.setup(net, sgd);
    const auto step = [&, &model = model, &optimizer = optimizer](int i, double factor = 1) {
      optimizer.zero_grad();
      fabric.backward(loss_of(model, 50 * i + 4 * fabric.global_rank()) * factor);
      optimizer.step();
    };
    fabric.join(model, [&] {
      for (int i = 0; i < 2 + fabric.global_rank(); ++i) step(i);
    });
    fabric.join(model, [&] {
      for (int i = 0; i < fabric.world_size() - fabric.global_rank(); ++i) step(i, INFINITY);
    });
    CHECK(alike(fabric, values(sgd.state_dict())));
    for (int i = 0; i < 5; ++i) step(i);
    CHECK(alike(fabric, values(net)));
    CHECK(alike(fabric, values(sgd.state_dict())));
  });
}

TEST_CASE("join: scaled steps with and without momentum stay alike after it, and after a second") {
  for_each_world([](Communicator& ranks) {
    for (const char* const precision : {"16-mixed", "16-true"})
      for (const double momentum : {0.0, 0.9}) {
        CAPTURE(precision);
        CAPTURE(momentum);
        join_twice(ranks, precision, momentum);
      }
  });
}

TEST_CASE("join: gradients of ranks that ran out are those of the others, wherever the loop zeroes and steps") {
  struct Way {
    bool zero_first, steps, zero_last, step_after;
  };
  const std::vector<Way> ways{
      {true, true, false, false}, {false, true, true, false}, {true, true, false, true}, {true, false, false, true}};
  const auto batches = [](int rank) { return 2 * rank; };  // the first has none
  for_each_world([&](Communicator& ranks) {
    for (const Way& way : ways) {
      Net alone = seeded();
      optim::SGD expected(nn::parameters(alone), {.lr = 0.1});
      for (int epoch = 0; epoch < 2; ++epoch) {
        for (int i = 0; i < std::max(1, batches(ranks.size() - 1)); ++i) {
          if (way.zero_first) expected.zero_grad();
          for (int r = 0; r < ranks.size(); ++r)
            if (ranks.size() == 1 || i < batches(r))
              (mse_loss(alone(rows(9 * i + 4 * r, 4, 6)), rows(4 * r, 4, 3)) / ranks.size()).backward();
          if (way.steps) expected.step();
          if (way.zero_last) expected.zero_grad();
        }
        if (way.step_after) expected.step();
      }
      for (const char* precision : {"32-true", "16-mixed", "bf16-mixed", "16-true"}) {
        CAPTURE(precision);
        Fabric fabric(over(ranks, {.precision = precision}));
        fabric.launch([&] {
          Net net = seeded();
          optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
          auto [model, optimizer] = fabric.setup(net, sgd);
          const int own = ranks.size() == 1 ? 1 : batches(ranks.rank());
          for (int epoch = 0; epoch < 2; ++epoch) {
            fabric.join(model, [&, &model = model, &optimizer = optimizer] {
              for (int i = 0; i < own; ++i) {
                if (way.zero_first) optimizer.zero_grad();
                fabric.backward(mse_loss(model(rows(9 * i + 4 * ranks.rank(), 4, 6)), rows(4 * ranks.rank(), 4, 3)));
                if (way.steps) CHECK(optimizer.step());
                if (way.zero_last) optimizer.zero_grad();
              }
            });
            for (const NamedTensor& p : nn::parameters(net)) CHECK(p.tensor.grad().defined() == !way.zero_last);
            CHECK(alike(fabric, gradients(net)));
            if (way.step_after) CHECK(optimizer.step());
            CHECK(alike(fabric, values(net)));
          }
          CHECK(difference(values(net), values(alone)) < (precision == std::string("32-true") ? 1e-6 : 1e-2));
        });
      }
    }
  });
}

TEST_CASE("join: one rank runs the loop as it is; options; several models") {
  for_each_world([](Communicator& ranks) {
    Fabric fabric(over(ranks));
    CHECK(contains(error_of([&] {
                     Net net = seeded();
                     const auto self = self_communicator();
                     Fabric other(over(*self));
                     other.launch([&] {
                       auto model = other.setup(net);
                       fabric.join(model, [] {});
                     });
                   }),
                   "join: call fabric.launch(...) first"));
    fabric.launch([&] {
      Net a = seeded(), b = seeded(5);
      optim::SGD sgd_a(nn::parameters(a), {.lr = 0.1}), sgd_b(nn::parameters(b), {.lr = 0.1});
      auto [one, optimizer_a] = fabric.setup(a, sgd_a);
      auto [two, optimizer_b] = fabric.setup(b, sgd_b);
      int inside = 0;
      CHECK(!fabric.join(one, [&] { ++inside; }, {.enable = false}).uneven);
      CHECK(!fabric.join(one, [&] { ++inside; }).uneven);
      CHECK(inside == 2);
      fabric.join(std::tie(one, two),
                  [&, &one = one, &two = two, &optimizer_a = optimizer_a, &optimizer_b = optimizer_b] {
                    for (int i = 0; i < 1 + fabric.global_rank(); ++i) {
                      optimizer_a.zero_grad();
                      fabric.backward(loss_of(one, 4 * i));
                      optimizer_a.step();
                      optimizer_b.zero_grad();
                      fabric.backward(loss_of(two, 4 * i));
                      optimizer_b.step();
                    }
                  });
      CHECK(alike(fabric, values(a)));
      CHECK(alike(fabric, values(b)));
      CHECK(fabric.global_step() == 2 * fabric.world_size());

      const std::string text = error_of([&, &one = one] {
        fabric.join(one,
                    [&] {
                      for (int i = 0; i < (fabric.global_rank() == 0 ? 1 : 2); ++i) fabric.backward(loss_of(one, 0));
                    },
                    {.throw_on_early_termination = true});
      });
      if (fabric.world_size() > 1)
        CHECK(contains(text, fabric.global_rank() == 0 ? "exhausted all inputs" : "Throwing across all ranks"));
    });
    FabricOptions options = over(ranks);
    options.plugins.strategy = std::make_shared<Alone>();
    Fabric alone(options);
    alone.launch([&] {
      Net net = seeded();
      auto model = alone.setup(net);
      const std::string text = error_of([&] { alone.join(model, [] {}); });
      CHECK(text == (alone.world_size() == 1 ? "" : "join: under the strategy 'alone' ranks cannot run out of data"));
    });
  });
}

TEST_CASE("a strategy with compressed gradients; the hook's state in a checkpoint") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    const auto hook = [] { return std::make_shared<PowerSgdHook>(PowerSgdOptions{.start_powerSGD_iter = 1}); };
    const auto steps = [](Fabric& fabric, const FabricModule<Net>& model, auto& optimizer, int from, int to) {
      for (int i = from; i < to; ++i) {
        optimizer.zero_grad();
        fabric.backward(loss_of(model, 50 * i + 4 * fabric.global_rank()));
        optimizer.step();
      }
    };
    std::vector<Tensor> expected;
    for (const bool resumed : {false, true}) {
      const auto power = hook();
      Fabric fabric(under_ddp(ranks, power));
      fabric.launch([&] {
        Net net = seeded(resumed ? 9 : 3);
        optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
        auto [model, optimizer] = fabric.setup(net, adamw);
        const State state{{"model", model}, {"optimizer", optimizer}, {"comm_hook", *power}};
        if (resumed) {
          fabric.load(folder / "power.ckpt", state);
        } else {
          steps(fabric, model, optimizer, 0, 4);
          fabric.save(folder / "power.ckpt", state);
        }
        CHECK(power->iter() == 4);
        steps(fabric, model, optimizer, 4, 8);
        if (resumed)
          CHECK(equal_all(values(net), expected));
        else
          expected = values(net);
      });
    }
    std::vector<std::vector<Tensor>> found;
    for (const auto& h : {allreduce_hook(), bf16_compress_hook()}) {
      Fabric fabric(under_ddp(ranks, h));
      fabric.launch([&] {
        Net net = seeded();
        optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
        auto [model, optimizer] = fabric.setup(net, sgd);
        steps(fabric, model, optimizer, 0, 4);
        CHECK(alike(fabric, values(net)));
        found.push_back(values(net));
      });
    }
    CHECK(!equal_all(found[0], found[1]));
    CHECK(difference(found[0], found[1]) < 1e-3);
  });
}

TEST_CASE("a state that is complete on one rank alone goes to all from whichever rank it is") {
  for_each_world([](Communicator& ranks) {
    for (int root = 0; root < ranks.size(); ++root) {
      struct Kept {
        Communicator& ranks;
        Tensor own;  // this rank's part
        std::map<std::string, Tensor> state_dict() const {
          Tensor all = empty({ranks.size(), 1});
          ranks.all_gather(all, own).wait();
          return {{"all", all}};
        }
        std::map<std::string, Tensor> state_dict_on(int rank) const {
          auto out = state_dict();
          if (rank != ranks.rank()) out.clear();
          return out;
        }
        void load_state_dict(const std::map<std::string, Tensor>& state) { own = state.at("all")[ranks.rank()] + 1.0; }
      } kept{ranks, full({1}, ranks.rank())};
      broadcast_state(ranks, StateEntry(kept), root);
      CHECK(kept.own.item<double>() == ranks.rank() + (ranks.rank() == root ? 0 : 1));
    }
  });
}
