// SPDX-License-Identifier: Apache-2.0
// Static graphs: the first iteration tells how often each parameter becomes ready.
#include <loom/autograd/checkpoint.h>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

struct Repeated {
  nn::Linear shared{4, 4}, last{4, 2}, extra{4, 2};
  LOOM_MEMBERS(shared, last, extra)
};

Tensor input(int rank) { return samples(3 * rank, 3, 4).requires_grad_(); }

int64_t reductions(const DdpStatistics& s) { return static_cast<int64_t>(s.launches.size()); }

}  // namespace

TEST_CASE("24: a parameter used in three checkpointed blocks is reduced once") {
  for_each_world([](Communicator& comm) {
    for (const bool nested : {true, false}) {
      Repeated net = seeded<Repeated>(), alone = seeded<Repeated>();
      const auto run = [&](const Repeated& m, int rank) {
        const auto block = [&m](const Tensor& x) { return tanh(m.shared(x)); };
        Tensor x = input(rank);
        for (int i = 0; i < 3; ++i) x = nested ? reentrant(x, block) : checkpoint(block, x);
        return m.last(x).sum();
      };
      const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { run(alone, r).backward(); });
      Ddp ddp(comm, nn::parameters(net), {}, {.static_graph = true});
      for (int step = 0; step < 4; ++step) {
        nn::zero_grad(net);
        ddp.forward([&] { return run(net, comm.rank()); }).backward();
        CHECK(equal_all(gradients(net), expected));  // `extra` is unused, and needs no flag
        CHECK(reductions(ddp.statistics()) == 1);
        CHECK(ddp.statistics().has_rebuilt == (step > 0));
        CHECK(ddp.statistics().unused_parameters == 2);
      }
    }
  });
}

TEST_CASE("24: checkpointed blocks need no static graph; a checkpointed forward is one forward") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), alone = seeded();
    const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { loss_of(alone, 4 * r, 4).backward(); });
    Ddp ddp(comm, nn::parameters(net));
    for (int step = 0; step < 3; ++step) {
      nn::zero_grad(net);
      Tensor loss = checkpoint([&] { return ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4); }); });
      loss.backward();
      CHECK(equal_all(gradients(net), expected));
    }
    CHECK(ddp.statistics().iterations == 3);
  });
}

TEST_CASE("25: a static graph must not change") {
  for_each_world([](Communicator& comm) {
    const auto run = [&](const Repeated& m, bool last, bool extra, int times = 1) {
      Tensor x = input(comm.rank());
      for (int i = 0; i < times; ++i) x = reentrant(x, [&m](const Tensor& h) { return tanh(m.shared(h)); });
      Tensor y = x.sum();
      if (last) y = y + m.last(x).sum();
      if (extra) y = y + m.extra(x).sum();
      return y;
    };
    const std::string changed =
        "Your training graph has changed in this iteration, e.g., one parameter is unused in "
        "first iteration, but then got used in the second iteration. this is not compatible with "
        "static_graph set to True.";
    {
      Repeated net = seeded<Repeated>();
      Ddp ddp(comm, nn::parameters(net), {}, {.static_graph = true});
      const auto step = [&](bool last, bool extra, int times = 1) {
        return error_of([&] { ddp.forward([&] { return run(net, last, extra, times); }).backward(); });
      };
      CHECK(step(true, false) == "");
      CHECK(contains(step(true, true), changed));
      CHECK(step(true, false) == "");
      CHECK(step(true, false) == "");
      CHECK(contains(step(true, false, 2), changed));
    }
    {
      Repeated net = seeded<Repeated>();
      Ddp ddp(comm, nn::parameters(net), {}, {.static_graph = true});
      const auto step = [&](bool last) {
        return error_of([&] { ddp.forward([&] { return run(net, last, true); }).backward(); });
      };
      CHECK(step(true) == "");
      CHECK(step(false) == "");
      const std::string text = step(true);
      CHECK(contains(text, "Expected to have finished reduction in the prior iteration"));
      CHECK(contains(text, "one parameter is used in first iteration, but then got unused in the second iteration."));
      CHECK(contains(text, "2 3 (last.weight, last.bias)"));
    }
  });
}
