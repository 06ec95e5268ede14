// SPDX-License-Identifier: Apache-2.0
// Parameters that a step leaves out, or comes to twice.
#include "ddp_models.h"

using namespace ddp_test;

namespace {

const DdpOptions finding{.find_unused_parameters = true, .warn = [](const std::string&) {}};

std::vector<float> numbers(const Tensor& x) { return x.defined() ? x.to_vector<float>() : std::vector<float>{}; }

Tensor rank_samples(int rank, int step = 0) { return samples(50 * step + 3 * rank, 3, 4); }

}  // namespace

TEST_CASE("17: a parameter left out is an error at the next forward, which names it") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>();
    Ddp ddp(comm, nn::parameters(net));
    const auto step = [&] { ddp.forward([&] { return net(rank_samples(comm.rank()), true, false); }).backward(); };
    CHECK(error_of(step) == "");
    const std::string text = error_of(step);
    CHECK(contains(text, "Expected to have finished reduction in the prior iteration before starting a new one."));
    CHECK(contains(text, str("did not receive grad for rank ", comm.rank(), ": 4 5 (right.weight, right.bias)")));
  });
}

TEST_CASE("18: what no rank uses keeps its gradient, or none") {
  for_each_world([](Communicator& comm) {
    for (const bool views : {true, false}) {
      Branches net = seeded<Branches>(), alone = seeded<Branches>();
      DdpOptions options = finding;
      options.gradient_as_bucket_view = views;
      Ddp ddp(comm, nn::parameters(net), {}, options);
      for (int step = 0; step < 3; ++step) {
        const auto expected =
            mean_of_ranks(alone, comm.size(), [&](int r) { alone(rank_samples(r, step), true, false).backward(); });
        nn::zero_grad(net);
        if (step > 0) net.right.weight.set_grad(full({2, 4}, 7 + comm.rank()));
        ddp.forward([&] { return net(rank_samples(comm.rank(), step), true, false); }).backward();
        for (size_t i = 0; i < 4; ++i) CHECK(same_numbers(nn::parameters(net)[i].tensor.grad(), expected[i]));
        CHECK(!net.right.bias.grad().defined());
        CHECK(net.right.weight.grad().defined() == (step > 0));
        if (step > 0) CHECK(equal(net.right.weight.grad(), full({2, 4}, 7 + comm.rank())));
        CHECK(ddp.statistics().unused_parameters == 2);
      }
      // Gradients of an earlier step, in the buckets, stay as well.
      ddp.forward([&] { return net(rank_samples(comm.rank()), true, true); }).backward();
      const auto kept = numbers(net.left.weight.grad());
      ddp.forward([&] { return net(rank_samples(comm.rank()), false, true); }).backward();
      CHECK(numbers(net.left.weight.grad()) == kept);
      CHECK(!kept.empty());
      // So do those that only this rank has accumulated.
      nn::zero_grad(net);
      {
        const auto guard = ddp.no_sync();
        ddp.forward([&] { return net(rank_samples(comm.rank()), true, false); }).backward();
      }
      const auto local = numbers(net.left.weight.grad());
      ddp.forward([&] { return net(rank_samples(comm.rank()), false, true); }).backward();
      CHECK(numbers(net.left.weight.grad()) == local);
    }
  });
}

TEST_CASE("19: what one rank uses gets the mean, with zeros from the others") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>(), alone = seeded<Branches>();
    Ddp ddp(comm, nn::parameters(net), {}, finding);
    alone(rank_samples(0), true, true).backward();
    for (int step = 0; step < 2; ++step) {
      nn::zero_grad(net);
      ddp.forward([&] { return net(rank_samples(comm.rank()), true, comm.rank() == 0); }).backward();
      CHECK(max_difference({net.right.weight.grad()}, {alone.right.weight.grad() / comm.size()}) < 1e-7);
      CHECK(same_on_all(comm, gradients(net)));
    }
    // Accumulated: the mean of what was there plus what came.
    const Tensor before = net.right.bias.grad().clone();
    ddp.forward([&] { return net(rank_samples(comm.rank()), true, comm.rank() == 0); }).backward();
    CHECK(max_difference({net.right.bias.grad()}, {before + alone.right.bias.grad() / comm.size()}) < 1e-6);
  });
}

TEST_CASE("20: branches that change with rank and step") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>(), alone = seeded<Branches>();
    DdpOptions options = finding;
    options.bucket_cap_mb = 1e-5;
    Ddp ddp(comm, nn::parameters(net), {}, options);
    double first = 0, last = 0;
    for (int step = 0; step < 12; ++step) {
      const auto left = [&](int r) { return (r + step) % 3 != 0; };
      const auto right = [&](int r) { return (r + step) % 3 != 1; };
      nn::zero_grad(net);
      const Tensor loss =
          ddp.forward([&] { return net(rank_samples(comm.rank()), left(comm.rank()), right(comm.rank())); });
      loss.backward();
      CHECK(same_on_all(comm, gradients(net)));
      const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) {
        (alone(rank_samples(r), true, true) * 0.0).backward();  // a branch not taken gives zeros
        alone(rank_samples(r), left(r), right(r)).backward();
      });
      for (size_t i = 0; i < expected.size(); ++i)
        if (const Tensor g = nn::parameters(net)[i].tensor.grad(); g.defined())
          CHECK(max_difference({g}, {expected[i]}) < 1e-6);
      const NoGrad off;
      const auto mine = nn::parameters(net), others = nn::parameters(alone);
      for (size_t i = 0; i < mine.size(); ++i) {
        if (mine[i].tensor.grad().defined()) mine[i].tensor.sub_(mine[i].tensor.grad(), 0.02);
        others[i].tensor.copy_(mine[i].tensor);
      }
      if (step % 3 == 0) (step == 0 ? first : last) = loss.item<double>();
    }
    CHECK(last < first);
    CHECK(same_on_all(comm, values(nn::parameters(net))));
  });
}

TEST_CASE("21: an output that the loss leaves out") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>(), alone = seeded<Branches>();
    Ddp ddp(comm, nn::parameters(net), {}, finding);
    const auto both = [](const Branches& m, const Tensor& x) {
      const Tensor h = tanh(m.trunk(x));
      return std::pair(m.left(h), m.right(h));
    };
    const auto expected =
        mean_of_ranks(alone, comm.size(), [&](int r) { both(alone, rank_samples(r)).first.sum().backward(); });
    for (int step = 0; step < 3; ++step) {
      nn::zero_grad(net);
      if (step == 2) net.right.bias.set_grad(full({2}, 5));
      const auto [left, right] = ddp.forward([&] { return both(net, rank_samples(comm.rank())); });
      left.sum().backward();
      CHECK(equal_all({net.trunk.weight.grad(), net.left.bias.grad()}, {expected[0], expected[3]}));
      CHECK(!net.right.weight.grad().defined());
      CHECK(numbers(net.right.bias.grad()) == (step == 2 ? std::vector<float>{5, 5} : std::vector<float>{}));
    }
  });
}

TEST_CASE("22: looking for unused parameters in vain warns once") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>();
    int warnings = 0;
    Ddp ddp(comm, nn::parameters(net), {}, {.find_unused_parameters = true, .warn = [&](const std::string& text) {
                                              ++warnings;
                                              CHECK(contains(text, "did not find any unused parameters"));
                                            }});
    for (int step = 0; step < 3; ++step)
      ddp.forward([&] { return net(rank_samples(comm.rank()), true, true); }).backward();
    CHECK(warnings == 1);
  });
}

TEST_CASE("23: a parameter that becomes ready twice in one backward") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>();
    Ddp ddp(comm, nn::parameters(net));
    const auto block = [&](const Tensor& x) { return tanh(net.trunk(x)); };
    // In two regions that run a backward of their own.
    const auto text = error_of([&] {
      ddp.forward([&] {
           const Tensor x = rank_samples(comm.rank()).requires_grad_();
           return reentrant(reentrant(x, block), block).sum() + net.left(x).sum() + net.right(x).sum();
         })
          .backward();
    });
    CHECK(contains(text, "Expected to mark a variable ready only once."));
    CHECK(contains(text, "Parameter at index 1 with name trunk.bias has been marked as ready twice.") !=
          contains(text, "Parameter at index 0 with name trunk.weight has been marked as ready twice."));

    // Through one of two outputs, twice.
    nn::zero_grad(net);
    const auto [left, right] = ddp.forward([&] {
      const Tensor x = rank_samples(comm.rank());
      return std::pair(net.left(x).sum(), net.right(net.trunk(x)).sum());
    });
    left.backward({}, true);
    CHECK(contains(error_of([&] { left.backward(); }), "has been marked as ready twice"));
    right.backward();
  });
}

TEST_CASE("two outputs, a backward each") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>(), alone = seeded<Branches>();
    Ddp ddp(comm, nn::parameters(net));
    const auto outputs = [](const Branches& m, const Tensor& x) {
      return std::map<std::string, std::vector<Tensor>>{{"a", {m.left(x).sum()}}, {"b", {m.right(m.trunk(x)).sum()}}};
    };
    const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) {
      auto out = outputs(alone, rank_samples(r));
      out["a"][0].backward();
      out["b"][0].backward();
    });
    for (int step = 0; step < 3; ++step) {
      nn::zero_grad(net);
      auto out = ddp.forward([&] { return outputs(net, rank_samples(comm.rank())); });
      out["a"][0].backward();
      out["b"][0].backward();
      CHECK(equal_all(gradients(net), expected));
    }
  });
}

TEST_CASE("two forwards with unused parameters, one backward") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>(), alone = seeded<Branches>();
    Ddp ddp(comm, nn::parameters(net), {}, finding);
    const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) {
      (alone(rank_samples(r), true, false) + alone(rank_samples(r, 1), false, true)).backward();
    });
    for (int step = 0; step < 2; ++step) {
      nn::zero_grad(net);
      const Tensor a = ddp.forward([&] { return net(rank_samples(comm.rank()), true, false); });
      const Tensor b = ddp.forward([&] { return net(rank_samples(comm.rank(), 1), false, true); });
      (a + b).backward();
      CHECK(equal_all(gradients(net), expected));
    }
  });
}

TEST_CASE("a parameter that only a loss kept aside uses") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>(), alone = seeded<Branches>();
    Ddp ddp(comm, nn::parameters(net), {}, finding);
    const auto aside = [](const Branches& m, int rank) { return square(m.right(rank_samples(rank))).sum(); };
    const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { aside(alone, r).backward(); });
    for (int step = 0; step < 2; ++step) {
      nn::zero_grad(net);
      Tensor kept;
      const Tensor returned = ddp.forward([&] {
        kept = aside(net, comm.rank());
        return net(rank_samples(comm.rank()), true, false);
      });
      kept.backward();
      CHECK(equal_all(gradients(net), expected));
    }
  });
}
