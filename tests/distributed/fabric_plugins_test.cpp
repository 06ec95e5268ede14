// SPDX-License-Identifier: Apache-2.0
// A strategy and a precision of the user's own: what Fabric asks of them, and that it does what they say.
#include <cmath>

#include <loom/fabric/strategies/ddp.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

// Every parameter belongs to one rank, which steps it and hands it to the others; nobody else keeps state of it.
class OwnedParameters final : public OptimizerSync {
 public:
  OwnedParameters(Communicator& world, optim::Optimizer& optimizer) : OptimizerSync(world, optimizer) {
    int next = 0;
    for (const optim::Group& group : optimizer.param_groups())
      for (const NamedTensor& p : group.parameters) owners_.emplace_back(p, next++ % world.size());
    optimizer.set_access([this](const NamedTensor& p) {
      return optim::Piece{p.tensor, owner(p.name) == this->world().rank() ? p.tensor.grad() : Tensor()};
    });
  }

  optim::StepOutcome step(const Tensor& found) override {
    optim::StepOutcome made = OptimizerSync::step(found);
    const NoGrad off;
    for (const auto& [p, rank] : owners_) world().broadcast(p.tensor.detach(), rank).wait();
    return made;
  }

  // Whole state: from each parameter's owner.
  StateEntry state_entry(StateEntry held) override {
    const auto save = [this, held] {
      StateDict out = held.save();
      for (const auto& [p, rank] : owners_)
        for (const char* const slot : {"exp_avg.", "exp_avg_sq."}) gather(out, slot + p.name, p.tensor, rank);
      for (const auto& [p, rank] : owners_) {
        Tensor step = full({}, static_cast<double>(optimizer().state(p.tensor).step), i64);
        world().broadcast(step, rank).wait();
        out.tensors["step." + p.name] = step;
      }
      return out;
    };
    return {save, held.verify, held.load};
  }

 private:
  int owner(const std::string& name) const {
    for (const auto& [p, rank] : owners_)
      if (p.name == name) return rank;
    fail("no parameter ", name);
  }
  void gather(StateDict& out, const std::string& key, const Tensor& like, int rank) {
    Tensor value = out.tensors.contains(key) ? out.tensors.at(key).clone() : zeros(like.shape(), like.dtype());
    world().broadcast(value, rank).wait();
    out.tensors[key] = value;
  }

  std::vector<std::pair<NamedTensor, int>> owners_;
};

class OwnedStrategy final : public Strategy {
 public:
  std::string_view name() const override { return "owned"; }
  std::unique_ptr<ModuleSync> setup_module(Communicator& world, std::vector<NamedTensor> parameters,
                                           std::vector<NamedTensor> buffers) override {
    return ddp_.setup_module(world, std::move(parameters), std::move(buffers));
  }
  std::unique_ptr<OptimizerSync> setup_optimizer(Communicator& world, optim::Optimizer& optimizer) override {
    return std::make_unique<OwnedParameters>(world, optimizer);
  }
  void backward(const std::function<void()>& run) override {
    run();
    ++backwards;
  }
  int backwards = 0;

 private:
  DdpStrategy ddp_;
};

// All ranks hold one replica between them: everyone sees all samples.
class OneReplica final : public Strategy {
 public:
  std::string_view name() const override { return "one replica"; }
  DataShare data_share(const Communicator&) const override { return {}; }
  void place(const std::vector<NamedTensor>& tensors, const TensorOptions& target) override {
    placed += static_cast<int>(tensors.size());
    Strategy::place(tensors, target);
  }
  std::unique_ptr<ModuleSync> setup_module(Communicator&, std::vector<NamedTensor>, std::vector<NamedTensor>) override {
    return std::make_unique<ModuleSync>();
  }
  int placed = 0;
};

// f32 parameters, f64 at the outside; the loss is scaled by a constant, and a step with non-finite gradients skipped.
class Scaled final : public Precision {
 public:
  explicit Scaled(double scale = 1024) : scale(scale) {}
  std::string_view name() const override { return "scaled"; }
  std::optional<DType> dtype() const override { return f32; }
  Tensor convert_output(const Tensor& x) const override { return x.to(f64); }
  std::shared_ptr<void> forward_scope() const override {
    ++*inside;
    return {nullptr, [count = inside](void*) { --*count; }};
  }
  Tensor before_backward(const Tensor& loss) override {
    unscaled_ = false;
    return loss * scale;
  }
  void before_clip(OptimizerSync& optimizer) override {
    if (std::exchange(unscaled_, true)) return;
    const Tensor found = zeros({}, f32);
    for (const Tensor& g : optimizer.gradients()) {
      g.mul_(1 / scale);
      if (!std::isfinite(norm(g, 2).item<double>())) found.fill_(1.0);
    }
    optimizer.agree(found);
    found_ = found;
  }
  Tensor found_inf(OptimizerSync&) override { return found_; }
  optim::StepOutcome step(OptimizerSync& optimizer) override {
    before_clip(optimizer);
    optim::StepOutcome made = optimizer.step(found_);
    if (!made) scale /= 2;
    return made;
  }
  StateDict state_dict() const override { return {{}, {{"scale", number_to_text(scale)}}}; }
  void check_state_dict(const StateDict& saved) const override { text_to_number(saved.value("scale")); }
  void load_state_dict(const StateDict& saved) override { scale = text_to_number(saved.value("scale")); }

  double scale;
  std::shared_ptr<int> inside = std::make_shared<int>(0);

 private:
  bool unscaled_ = false;
  Tensor found_;
};

struct Probe {
  nn::Linear fc{2, 2};
  const int* inside = nullptr;
  Tensor operator()(const Tensor& x) const {
    check(*inside == 1, "closed");
    check(x.size(0) > 1, "one row");
    return fc(x);
  }
  LOOM_MEMBERS(fc)
};

FabricOptions with(Communicator& ranks, std::shared_ptr<Strategy> strategy, std::shared_ptr<Precision> precision = {}) {
  FabricOptions options = over(ranks);
  options.plugins.strategy = std::move(strategy);
  options.plugins.precision = std::move(precision);
  return options;
}

// Ten steps of AdamW, clipped; the parameters after them.
std::vector<Tensor> train(Fabric& fabric, Net& net, optim::AdamW& adamw, double max_norm = 0.05) {
  auto [model, optimizer] = fabric.setup(net, adamw);
  for (int step = 0; step < 10; ++step) {
    const int64_t begin = 4 * (step * fabric.world_size() + fabric.global_rank());
    optimizer.zero_grad();
    fabric.backward(mse_loss(model(rows(begin, 4, 6)), rows(begin, 4, 3).to(model(rows(0, 1, 6)).dtype())));
    fabric.clip_gradients(model, optimizer, {.max_norm = max_norm});
    CHECK(optimizer.step());
  }
  return values(net);
}

std::vector<Tensor> trained(const FabricOptions& options) {
  Fabric fabric(options);
  std::vector<Tensor> out;
  fabric.launch([&] {
    Net net = seeded();
    optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
    out = train(fabric, net, adamw);
  });
  return out;
}

}  // namespace

TEST_CASE("a strategy of one's own may shard an optimizer: same bits, state saved whole") {
  for_each_world([](Communicator& ranks) {
    const auto strategy = std::make_shared<OwnedStrategy>();
    const SharedFolder folder(ranks);
    Fabric fabric(with(ranks, strategy));
    fabric.launch([&] {
      CHECK(fabric.strategy().name() == "owned");
      Net net = seeded();
      optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
      const auto after = train(fabric, net, adamw);
      CHECK(strategy->backwards == 10);
      CHECK(equal_all(after, trained(with(ranks, std::make_shared<DdpStrategy>()))));
      int64_t kept = 0;  // parameters that this rank remembers something of
      for (const auto& [name, value] : adamw.state_dict()) kept += name.starts_with("exp_avg.") ? 1 : 0;
      CHECK(kept <= (4 + ranks.size() - 1) / ranks.size());
    });
  });
}

TEST_CASE("what a sharding strategy saves, one that does not shard loads") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    std::vector<Tensor> weights, state;
    {
      Fabric fabric(with(ranks, std::make_shared<OwnedStrategy>()));
      fabric.launch([&] {
        Net net = seeded();
        optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
        auto [model, optimizer] = fabric.setup(net, adamw);
        fabric.backward(mse_loss(model(rows(0, 4, 6)), rows(0, 4, 3)));
        optimizer.step();
        weights = values(net);
        fabric.save(folder / "sharded.ckpt", {{"model", model}, {"optimizer", optimizer}});
      });
    }
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Net reference = seeded(), net = seeded(9);
      optim::AdamW whole(nn::parameters(reference), {.lr = 0.01}), adamw(nn::parameters(net), {.lr = 0.01});
      auto [first, first_optimizer] = fabric.setup(reference, whole);
      fabric.backward(mse_loss(first(rows(0, 4, 6)), rows(0, 4, 3)));
      first_optimizer.step();
      auto [model, optimizer] = fabric.setup(net, adamw);
      fabric.load(folder / "sharded.ckpt", {{"model", model}, {"optimizer", optimizer}});
      CHECK(equal_all(values(net), weights));
      CHECK(equal_all(values(adamw.state_dict()), values(whole.state_dict())));
    });
  });
}

TEST_CASE("a strategy of one's own says who reads which samples, and places modules") {
  for_each_world([](Communicator& ranks) {
    const auto strategy = std::make_shared<OneReplica>();
    Fabric fabric(with(ranks, strategy));
    fabric.launch([&] {
      CHECK(context().data_rank == 0);
      Net net;
      fabric.setup(net);
      CHECK(strategy->placed == 4);
      auto loader = fabric.setup_dataloaders(data::DataLoader(samples(12), {.batch_size = 4, .shuffle = true}));
      CHECK(loader.size() == 3);  // not divided among the ranks
      Tensor all;
      for (auto [x, y] : loader) all = all.defined() ? cat({all, x}) : x;
      const Tensor everyones = fabric.all_gather(all);
      for (int64_t r = 0; r < fabric.world_size(); ++r) CHECK(equal(everyones[r], all));
    });
  });
}

TEST_CASE("a precision of one's own: scaled losses, unscaled clipping, outputs in f64") {
  for_each_world([](Communicator& ranks) {
    const auto precision = std::make_shared<Scaled>();
    Fabric fabric(with(ranks, nullptr, precision));
    fabric.launch([&] {
      CHECK(fabric.precision().name() == "scaled");
      Net net = seeded();
      optim::AdamW adamw(nn::parameters(net), {.lr = 0.01});
      const auto with_scale = train(fabric, net, adamw);
      CHECK(equal_all(with_scale, trained(with(ranks, nullptr, std::make_shared<Scaled>(1)))));  // a power of two
      FabricModule<Net> model = fabric.setup_module(net);
      CHECK(model(rows(0, 1, 6)).dtype() == f64);
      CHECK(model.call(&Net::hidden, rows(0, 1, 6)).dtype() == f64);
      CHECK(*precision->inside == 0);
    });
  });
}

TEST_CASE("the forward scope of a precision is open in a forward, and closed when it throws") {
  const auto self = self_communicator();
  const auto precision = std::make_shared<Scaled>();
  Fabric fabric(with(*self, nullptr, precision));
  fabric.launch([&] {
    Probe net;
    net.inside = precision->inside.get();
    auto model = fabric.setup(net);
    CHECK(model(ones({2, 2})).defined());
    CHECK(error_of([&] { model(ones({1, 2})); }) == "one row");
    CHECK(*precision->inside == 0);
  });
}

TEST_CASE("a step that a precision skips changes nothing and does not count, and its state is in every checkpoint") {
  for_each_world([](Communicator& ranks) {
    const auto precision = std::make_shared<Scaled>();
    Fabric fabric(with(ranks, nullptr, precision));
    const SharedFolder folder(ranks);
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.01});
      auto [model, optimizer] = fabric.setup(net, sgd);
      fabric.backward(mse_loss(model(rows(0, 4, 6)), zeros({4, 3}, f64)));
      if (fabric.global_rank() == fabric.world_size() - 1) net.first.bias.grad().fill_(INFINITY);  // after averaging
      const auto before = values(net);
      CHECK_FALSE(optimizer.step());
      CHECK(equal_all(values(net), before));
      CHECK(fabric.global_step() == 0);
      CHECK(precision->scale == 512);
      fabric.save(folder / "scaled.ckpt", {{"model", model}});

      const auto other = std::make_shared<Scaled>();
      Fabric second(with(ranks, nullptr, other));
      second.launch([&] { second.load(folder / "scaled.ckpt", {{"model", net}}); });
      CHECK(other->scale == 512);
      Fabric plain(over(ranks));  // has no use for it
      plain.launch([&] { plain.load(folder / "scaled.ckpt", {{"model", net}}); });
    });
  });
}
