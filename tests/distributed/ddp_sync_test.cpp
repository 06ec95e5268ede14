// SPDX-License-Identifier: Apache-2.0
// When gradients and buffers are synchronised, and when not.
#include <atomic>
#include <stdexcept>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

// A model under DDP and a copy that trains alone.
struct Twins {
  explicit Twins(Communicator& comm, const DdpOptions& options = {})
      : comm(comm), ddp(comm, nn::parameters(net), {}, options) {}
  Tensor forward(int step) {
    return ddp.forward([&] { return loss_of(net, at(comm.rank(), step), 4); });
  }
  // What rank `rank` adds to its gradients at `step`.
  void alone_backward(int rank, int step) { loss_of(alone, at(rank, step), 4).backward(); }
  std::vector<Tensor> local(const std::vector<int>& steps) {
    nn::zero_grad(alone);
    for (const int s : steps) alone_backward(comm.rank(), s);
    return gradients(alone);
  }
  std::vector<Tensor> mean(const std::vector<int>& steps) {
    return mean_of_ranks(alone, comm.size(), [&](int r) {
      for (const int s : steps) alone_backward(r, s);
    });
  }
  static int64_t at(int rank, int step) { return 100 * step + 4 * rank; }

  Communicator& comm;
  Net net = seeded(), alone = seeded();
  Ddp ddp;
};

std::vector<Tensor> sum(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  std::vector<Tensor> out;
  for (size_t i = 0; i < a.size(); ++i) out.push_back(a[i] + b[i]);
  return out;
}

}  // namespace

TEST_CASE("26: every other step without synchronisation") {
  for_each_world([](Communicator& comm) {
    for (const bool views : {true, false}) {
      Twins p(comm, {.gradient_as_bucket_view = views});
      for (int step = 0; step < 6; step += 2) {
        nn::zero_grad(p.net);
        {
          const auto guard = p.ddp.no_sync();
          p.forward(step).backward();
        }
        CHECK(equal_all(gradients(p.net), p.local({step})));
        CHECK(same_on_all(comm, gradients(p.net)) == (comm.size() == 1));
        p.forward(step + 1).backward();
        CHECK(equal_all(gradients(p.net), p.mean({step, step + 1})));
      }
    }
  });
}

TEST_CASE("27: forward decides") {
  for_each_world([](Communicator& comm) {
    Twins p(comm);
    const Tensor synced = p.forward(0);
    {
      const auto guard = p.ddp.no_sync();
      synced.backward();
    }
    CHECK(equal_all(gradients(p.net), p.mean({0})));
    nn::zero_grad(p.net);

    Tensor local;
    {
      const auto guard = p.ddp.no_sync();
      local = p.forward(1);
    }
    CHECK(p.ddp.requires_gradient_sync());
    local.backward();
    CHECK(equal_all(gradients(p.net), p.local({1})));
    nn::zero_grad(p.net);

    {
      const auto guard = p.ddp.no_sync(false);
      p.forward(2).backward();
    }
    CHECK(equal_all(gradients(p.net), p.mean({2})));
    nn::zero_grad(p.net);

    p.ddp.set_requires_gradient_sync(false);
    p.forward(3).backward();
    CHECK(equal_all(gradients(p.net), p.local({3})));
    nn::zero_grad(p.net);
    p.ddp.set_requires_gradient_sync(true);

    // One of each, in either order: each backward goes by its own forward.
    for (const bool synced_first : {true, false}) {
      nn::zero_grad(p.net);
      const Tensor a = p.forward(4);
      Tensor b;
      {
        const auto guard = p.ddp.no_sync();
        b = p.forward(5);
      }
      (synced_first ? a : b).backward();
      CHECK(equal_all(gradients(p.net), synced_first ? p.mean({4}) : p.local({5})));
      (synced_first ? b : a).backward();
      const auto own = p.local({5});
      const auto expected = synced_first ? sum(p.mean({4}), own) : p.mean({5, 4});
      CHECK(equal_all(gradients(p.net), expected));
    }
  });
}

TEST_CASE("28: the rebuild waits for the first synchronised backward") {
  for_each_world([](Communicator& comm) {
    Twins p(comm, {.bucket_cap_mb = 1e-4});
    {
      const auto guard = p.ddp.no_sync();
      p.forward(0).backward();
      p.forward(1).backward();
    }
    CHECK(p.ddp.statistics().iterations == 0);
    p.forward(2).backward();
    CHECK(!p.ddp.statistics().has_rebuilt);
    CHECK(equal_all(gradients(p.net), p.mean({0, 1, 2})));
    const auto before = gradients(p.net);
    {
      const auto guard = p.ddp.no_sync();
      const Tensor loss = p.forward(3);
      CHECK(!p.ddp.statistics().has_rebuilt);
    }
    const Tensor loss = p.forward(4);  // accumulated gradients move to the new buckets
    CHECK(p.ddp.statistics().has_rebuilt);
    CHECK(equal_all(gradients(p.net), before));
    nn::zero_grad(p.net);
    loss.backward();
    CHECK(equal_all(gradients(p.net), p.mean({4})));
  });
}

TEST_CASE("29: accumulation without no_sync") {
  for_each_world([](Communicator& comm) {
    for (const bool interleaved : {false, true})
      for (const bool views : {true, false}) {
        Twins p(comm, {.gradient_as_bucket_view = views});
        for (int round = 0; round < 3; ++round) {
          nn::zero_grad(p.net);
          const Tensor a = p.forward(0);
          if (interleaved) a.backward();
          const Tensor b = p.forward(1);
          if (!interleaved) a.backward();
          CHECK(equal_all(gradients(p.net), p.mean({0})));
          b.backward();
          CHECK(same_on_all(comm, gradients(p.net)));
          CHECK(max_difference(gradients(p.net), sum(p.mean({0}), p.mean({1}))) < 1e-7);
        }
        CHECK(p.ddp.statistics().iterations == 6);
      }
  });
}

TEST_CASE("29: two forwards, one backward; one forward, two backwards") {
  for_each_world([](Communicator& comm) {
    Twins p(comm);
    for (int round = 0; round < 2; ++round) {
      nn::zero_grad(p.net);
      (p.forward(0) + p.forward(1)).backward();
      CHECK(max_difference(gradients(p.net), p.mean({0, 1})) < 1e-7);
      nn::zero_grad(p.net);
      const Tensor loss = p.forward(2);
      loss.backward({}, true);
      loss.backward();
      CHECK(max_difference(gradients(p.net), p.mean({2, 2})) < 1e-7);
    }
  });
}

TEST_CASE("losses that forward does not return, and results that cannot be looked into") {
  for_each_world([](Communicator& comm) {
    struct Opaque {
      explicit Opaque(Tensor x) : loss(std::move(x)) {}
      Tensor loss;
    };
    Twins p(comm);
    for (int step = 0; step < 4; ++step) {
      nn::zero_grad(p.net);
      Tensor kept;
      if (step == 0) {
        p.ddp.forward([&] { kept = loss_of(p.net, Twins::at(comm.rank(), step), 4); });
      } else if (step == 1) {
        kept = p.ddp.forward([&] { return Opaque{loss_of(p.net, Twins::at(comm.rank(), step), 4)}; }).loss;
      } else {  // the result is of no use, or used as well
        const Tensor other = p.ddp.forward([&] {
          kept = loss_of(p.net, Twins::at(comm.rank(), step), 4);
          return p.net(samples(0, 1, 6));
        });
        if (step == 3) kept = kept + other.sum() * 0.0;
      }
      kept.backward();
      CHECK(max_difference(gradients(p.net), p.mean({step})) < 1e-7);
      CHECK(same_on_all(comm, gradients(p.net)));
      // Not a backward of that forward any more.
      mean(p.net.first.weight * static_cast<double>(comm.rank())).backward();
      CHECK(same_on_all(comm, {p.net.first.weight.grad()}) == (comm.size() == 1));
    }
  });
}

TEST_CASE("grad() through a synchronised forward reduces nothing") {
  for_each_world([](Communicator& comm) {
    Twins p(comm);
    Tensor x = samples(4 * comm.rank(), 4, 6).requires_grad_();
    const Tensor y = p.ddp.forward([&] { return p.net(x); });
    const Tensor dx = grad(y.sum(), x, {}, {.create_graph = true});
    CHECK(p.ddp.statistics().iterations == 0);
    (square(dx).sum() + y.sum()).backward();  // a gradient penalty
    CHECK(p.ddp.statistics().iterations == 1);
    CHECK(same_on_all(comm, gradients(p.net)));
  });
}

TEST_CASE("34: after an exception in backward the next iteration trains") {
  for_each_world([](Communicator& comm) {
    for (const DdpOptions& options :
         {DdpOptions{.bucket_cap_mb = 1e-4},
          DdpOptions{.bucket_cap_mb = 1e-4, .find_unused_parameters = true, .warn = [](auto&) {}},
          DdpOptions{.static_graph = true}}) {
      Twins p(comm, options);
      for (int step = 0; step < 6; ++step) {
        nn::zero_grad(p.net);
        if (step % 2 == 0) {
          const Tensor loss = p.ddp.forward([&] {
            const Tensor hidden = tanh(p.net.first(samples(0, 4, 6)));
            hidden.register_hook([](const Tensor&) -> std::optional<Tensor> { throw std::runtime_error("stop"); });
            return p.net.third(tanh(p.net.second(hidden))).sum();
          });
          CHECK_THROWS_WITH_AS(loss.backward(), "stop", std::runtime_error);
        } else {
          p.forward(step).backward();
          CHECK(equal_all(gradients(p.net), p.mean({step})));
        }
      }
      CHECK(p.ddp.statistics().iterations == 3);
    }
  });
}

TEST_CASE("34: and so does a backward right after it") {
  for_each_world([](Communicator& comm) {
    Twins p(comm, {.bucket_cap_mb = 1e-4});
    p.forward(0).backward();
    const Tensor failing = p.ddp.forward([&] {
      const Tensor hidden = tanh(p.net.first(samples(0, 4, 6)));
      hidden.register_hook([](const Tensor&) -> std::optional<Tensor> { throw std::runtime_error("stop"); });
      return p.net.third(tanh(p.net.second(hidden))).sum();
    });
    const Tensor next = p.forward(1);
    CHECK_THROWS_WITH_AS(failing.backward(), "stop", std::runtime_error);
    nn::zero_grad(p.net);
    next.backward();
    CHECK(equal_all(gradients(p.net), p.mean({1})));
    CHECK(p.ddp.statistics().iterations == 2);
  });
}

TEST_CASE("35: no collective in forwards without gradients or in evaluation") {
  for_each_world([](Communicator& comm) {
    Net net = seeded();
    const Tensor statistic = full({2}, comm.rank());
    Ddp ddp(comm, nn::parameters(net), {{"statistic", statistic}});
    ddp.forward([&] { return loss_of(net, 0, 4); }).backward();  // a rebuild is due
    std::atomic<int> collectives = 0;
    comm.set_observer([&](const Collective&) { ++collectives; });
    {
      const NoGrad off;
      ddp.forward([&] { return net(samples(0, 1, 6)); });
    }
    ddp.forward([&] { return net(samples(0, 1, 6)); }, false);
    CHECK(collectives == 0);
    ddp.forward([&] { return net(samples(0, 1, 6)); });
    CHECK(collectives > 0);
    comm.set_observer({});
  });
}

TEST_CASE("35: rank 0 may evaluate alone, also after a step without synchronisation") {
  for_each_world([](Communicator& comm) {
    Net net = seeded();
    const Tensor statistic = full({2}, comm.rank());
    Ddp ddp(comm, nn::parameters(net), {{"statistic", statistic}});
    for (int step = 0; step < 3; ++step) {
      {
        const auto guard = ddp.no_sync();
        ddp.forward([&] { return loss_of(net, 0, 4); }).backward();
      }
      if (comm.rank() == 0) ddp.forward([&] { return net(samples(0, 1, 6)); }, false);
      ddp.forward([&] { return loss_of(net, 0, 4); }).backward();
    }
    double sum = comm.rank();
    comm.all_reduce(view_over(&sum, DType::f64, {1})).wait();  // nothing is left over from the forwards
    CHECK(sum == comm.size() * (comm.size() - 1) / 2);
  });
}

TEST_CASE("36: buffers are rank 0's before a forward that follows a synchronised one") {
  for_each_world([](Communicator& comm) {
    for (const bool broadcast : {true, false}) {
      Net net = seeded();
      const Tensor buffer = full({3}, 0), counter = full({}, 0, i64);
      Ddp ddp(comm, nn::parameters(net), {{"buffer", buffer}, {"counter", counter}}, {.broadcast_buffers = broadcast});
      const double own = 1 + comm.rank();
      const auto forward = [&] {
        buffer.fill_(own);
        counter.fill_(own);
        ddp.forward([&] { return loss_of(net, 0, 4); }).backward();
      };
      const auto check_value = [&](double expected) {
        CHECK(buffer.to_vector<double>() == std::vector<double>(3, expected));
        CHECK(counter.item<double>() == expected);
      };
      forward();
      check_value(broadcast ? 1 : own);
      {
        const auto guard = ddp.no_sync();
        forward();
        check_value(broadcast ? 1 : own);  // follows a synchronised one
        forward();
        check_value(own);
      }
      forward();
      check_value(own);
      forward();
      check_value(broadcast ? 1 : own);
    }
  });
}
