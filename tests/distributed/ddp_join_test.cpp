// SPDX-License-Identifier: Apache-2.0
// Ranks that run out of data before others.
#include <loom/distributed/join.h>

#include <loom/distributed/default_hooks.h>
#include <loom/distributed/power_sgd.h>
#include <loom/nn/optim/sgd.h>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

const auto quiet = [](const std::string&) {};

// Ranks that have data in step `step`, where rank r has count(r) steps of it.
template <class Count>
std::vector<int> active_in(int ranks, int step, const Count& count) {
  std::vector<int> out;
  for (int r = 0; r < ranks; ++r)
    if (step < count(r)) out.push_back(r);
  return out;
}

// What training with uneven inputs should come to, by each rank alone: SGD on the sum of the active ranks' gradients,
// divided by the number of all ranks or of the active ones.
template <class Count, class Loss>
void train_alone(Net& net, int ranks, bool divide_by_all, const Count& count, const Loss& loss) {
  for (int step = 0;; ++step) {
    const auto active = active_in(ranks, step, count);
    if (active.empty()) return;
    nn::zero_grad(net);
    for (const int r : active) loss(net, r, step).backward();
    const NoGrad off;
    for (const NamedTensor& p : nn::parameters(net))
      if (p.tensor.grad().defined())
        p.tensor.sub_(p.tensor.grad(), 0.1 / static_cast<double>(divide_by_all ? ranks : active.size()));
  }
}

Tensor plain_loss(const Net& net, int rank, int step) { return loss_of(net, 100 * step + 4 * rank, 4); }

}  // namespace

TEST_CASE("37: golden: gradients of 50, rank 0 has three inputs, the others five") {
  for_each_world([](Communicator& comm) {
    for (const bool divide_by_all : {true, false}) {
      Parameter weight(zeros({2}));
      Ddp ddp(comm, {{"weight", weight}});
      const int inputs = comm.rank() == 0 ? 3 : 5;
      const Joined joined = join(ddp,
                                 [&] {
                                   for (int i = 0; i < inputs; ++i) {
                                     weight.set_grad({});
                                     ddp.forward([&] { return (weight * 50.0).sum(); }).backward();
                                     const double share =
                                         i < 3 || !divide_by_all ? 1 : (comm.size() - 1.0) / comm.size();
                                     CHECK(max_difference({weight.grad()}, {full({2}, 50 * share)}) < 1e-5);
                                     const NoGrad off;
                                     weight.sub_(weight.grad());
                                   }
                                 },
                                 {.divide_by_initial_world_size = divide_by_all});
      CHECK(joined.uneven == (comm.size() > 1));
      CHECK(joined.last == (comm.size() > 1 ? 1 : 0));
      const double last_two = comm.size() == 1 ? 0 : divide_by_all ? 100.0 * (comm.size() - 1) / comm.size() : 100;
      CHECK(max_difference({weight}, {full({2}, -150 - last_two)}) < 1e-4);
    }
  });
}

TEST_CASE("37: with any options, epoch after epoch, also where a rank has no data at all") {
  for_each_world([](Communicator& comm) {
    const std::vector<DdpOptions> ways{{.bucket_cap_mb = 1e-4},
                                       {.bucket_cap_mb = 1e-4, .find_unused_parameters = true, .warn = quiet},
                                       {.bucket_cap_mb = 1e-4, .static_graph = true},
                                       {.gradient_as_bucket_view = false}};
    for (const DdpOptions& options : ways)
      for (const bool divide_by_all : {true, false}) {
        Net net = seeded(), alone = seeded();
        Ddp ddp(comm, nn::parameters(net), {}, options);
        optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
        for (int epoch = 0; epoch < 3; ++epoch) {
          // Rank 0 has nothing at first, then the least, then the most; the last epoch is even.
          const auto count = [&](int r) { return epoch == 2 ? 2 : epoch == 0 ? 2 * r : comm.size() - r; };
          const Joined joined = join(ddp,
                                     [&] {
                                       for (int step = 0; step < count(comm.rank()); ++step) {
                                         sgd.zero_grad();
                                         ddp.forward([&] { return plain_loss(net, comm.rank(), step); }).backward();
                                         sgd.step();
                                       }
                                     },
                                     {.divide_by_initial_world_size = divide_by_all});
          train_alone(alone, comm.size(), divide_by_all, count, plain_loss);
          CHECK(joined.uneven == (comm.size() > 1 && epoch < 2));
          CHECK(same_on_all(comm, values(nn::parameters(net))));
          CHECK(same_on_all(comm, gradients(net)));
          CHECK(max_difference(values(nn::parameters(net)), values(nn::parameters(alone))) < 1e-5);
        }
        const auto steps = ddp.statistics().iterations;
        double own = static_cast<double>(steps);
        comm.all_reduce(view_over(&own, f64, {1}), ReduceOp::max).wait();
        CHECK(own == static_cast<double>(steps));
      }
  });
}

TEST_CASE("37: buffers are those of the first rank that has data") {
  for_each_world([](Communicator& comm) {
    Net net = seeded();
    const Tensor buffer = full({3}, 0);
    Ddp ddp(comm, nn::parameters(net), {{"buffer", buffer}});
    const int inputs = comm.rank() == 0 ? 1 : 3;
    join(ddp, [&] {
      for (int i = 0; i < inputs; ++i) {
        buffer.fill_(10 * i + comm.rank());
        ddp.forward([&] { return plain_loss(net, comm.rank(), i); }).backward();
        CHECK(buffer.to_vector<double>() == std::vector<double>(3, i == 0 || comm.size() == 1 ? 10 * i : 10 * i + 1));
      }
    });
    CHECK(buffer.to_vector<double>() == std::vector<double>(3, comm.size() == 1 ? 0 : 21));
  });
}

TEST_CASE("37: a loop that is even costs a word a backward, and changes nothing") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), other = seeded();
    Ddp ddp(comm, nn::parameters(net)), plain(comm, nn::parameters(other));
    const auto step = [&](Ddp& d, const Net& n) {
      nn::zero_grad(n);
      d.forward([&] { return plain_loss(n, comm.rank(), 0); }).backward();
    };
    for (int i = 0; i < 2; ++i) {  // until the buckets are what they stay
      step(ddp, net);
      step(plain, other);
    }
    std::vector<std::string> log;
    comm.set_observer([&](const Collective& c) { log.push_back(to_string(c.kind) + str(c.out.numel())); });
    join(ddp, [&] {
      for (int i = 0; i < 2; ++i) step(ddp, net);
    });
    comm.set_observer(nullptr);
    step(plain, other);
    const std::string word = str("all_gather", comm.size());
    REQUIRE(log.size() == 5);
    CHECK(std::vector<std::string>{log[0], log[2], log[4]} == std::vector<std::string>(3, word));
    CHECK(equal_all(gradients(net), gradients(other)));
  });
}

TEST_CASE("38: with throw_on_early_termination every rank throws") {
  for_each_world([](Communicator& comm) {
    for (const bool sync : {true, false}) {
      Net net = seeded();
      Ddp ddp(comm, nn::parameters(net));
      const int inputs = comm.rank() == 0 ? 2 : 4;
      int steps = 0;
      const std::string text = error_of([&] {
        join(ddp,
             [&] {
               for (; steps < inputs; ++steps) {
                 nn::zero_grad(net);
                 const auto guard = ddp.no_sync(!sync);
                 ddp.forward([&] { return plain_loss(net, comm.rank(), steps); }).backward();
               }
             },
             {.throw_on_early_termination = true});
      });
      CHECK(steps == (comm.size() == 1 ? inputs : 2));
      if (comm.size() == 1)
        CHECK(text == "");
      else if (comm.rank() == 0)
        CHECK(text == "Rank 0 exhausted all inputs.");
      else
        CHECK(text == "Detected at least one rank that exhausted inputs. Throwing across all ranks.");
      CHECK(!ddp.joined());
      nn::zero_grad(net);
      ddp.forward([&] { return plain_loss(net, comm.rank(), 0); }).backward();  // goes on as before
      CHECK(same_on_all(comm, gradients(net)));
      CHECK(error_of([&] { join(ddp, [] {}, {.throw_on_early_termination = true}); }) == "");
    }
  });
}

TEST_CASE("39: no_sync: what a rank has accumulated without synchronisation when it runs out is left out") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), alone = seeded();
    Ddp ddp(comm, nn::parameters(net));
    const int inputs = comm.rank() == 0 ? 3 : 6;  // rank 0 runs out in the middle of a step of two
    std::vector<std::vector<Tensor>> found;
    join(ddp,
         [&] {
           for (int i = 0; i < inputs; ++i) {
             const auto guard = ddp.no_sync(i % 2 == 0);
             ddp.forward([&] { return plain_loss(net, comm.rank(), i); }).backward();
             if (i % 2 == 0) continue;
             found.push_back(gradients(net));
             nn::zero_grad(net);
           }
         },
         {.divide_by_initial_world_size = false});
    CHECK(found.size() == (comm.rank() == 0 ? 1 : 3));
    if (comm.size() == 1) return;
    for (size_t step = 0; step < found.size(); ++step) {
      nn::zero_grad(alone);
      const int first = step == 0 ? 0 : 1;
      for (int r = first; r < comm.size(); ++r)
        for (const int i : {0, 1})
          (plain_loss(alone, r, 2 * static_cast<int>(step) + i) / (comm.size() - first)).backward();
      CHECK(max_difference(found[step], gradients(alone)) < 1e-6);
    }
  });
}

TEST_CASE("39: no_sync: who had data to the end keeps what it has accumulated; others take over the first one's") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), alone = seeded();
    Ddp ddp(comm, nn::parameters(net));
    const int inputs = comm.rank() == 0 ? 1 : 3;
    join(ddp, [&] {
      for (int i = 0; i < inputs; ++i) {
        nn::zero_grad(net);
        const auto guard = ddp.no_sync(i == 2);
        ddp.forward([&] { return plain_loss(net, comm.rank(), i); }).backward();
      }
    });
    const int kept = comm.size() == 1 ? 0 : std::max(1, comm.rank());
    plain_loss(alone, kept, comm.size() == 1 ? 0 : 2).backward();
    CHECK(max_difference(gradients(net), gradients(alone)) < 1e-6);
  });
}

TEST_CASE("39: parameters that some ranks leave out, on some steps") {
  for_each_world([](Communicator& comm) {
    Branches net = seeded<Branches>(6), alone = seeded<Branches>(6);
    Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 1e-5, .find_unused_parameters = true, .warn = quiet});
    const auto count = [&](int r) { return 2 + r; };
    const auto left = [](int r, int step) { return r == 1 && step < 3; };  // in the end nobody
    const auto run = [&](const Branches& m, int r, int step) {
      return m(samples(9 * step + 3 * r, 3, 6), left(r, step), step % 2 == 0);
    };
    join(ddp, [&] {
      for (int step = 0; step < count(comm.rank()); ++step) {
        nn::zero_grad(net);
        ddp.forward([&] { return run(net, comm.rank(), step); }).backward();
        nn::zero_grad(alone);
        bool any_left = false;
        for (const int r : active_in(comm.size(), step, count)) {
          (run(alone, r, step) / comm.size()).backward();
          any_left = any_left || left(r, step);
        }
        CHECK(net.left.weight.grad().defined() == any_left);
        CHECK(net.right.weight.grad().defined() == (step % 2 == 0));
        const auto mine = gradients(net), expected = gradients(alone);
        for (size_t i = 0; i < mine.size(); ++i)
          if (mine[i].defined()) CHECK(max_difference({mine[i]}, {expected[i]}) < 1e-6);
      }
    });
    CHECK(same_on_all(comm, gradients(net)));
  });
}

TEST_CASE("ranks without data take part in the legs of a hook") {
  for_each_world([](Communicator& comm) {
    for (const int kind : {0, 1, 2}) {
      const auto power = std::make_shared<PowerSgdHook>(PowerSgdOptions{.start_powerSGD_iter = 1});
      const std::shared_ptr<CommHook> hook = kind == 0   ? bf16_compress_hook()
                                             : kind == 1 ? power
                                                         : fp16_compress_wrapper(power);
      Net net = seeded();
      Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 1e-4, .comm_hook = hook});
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      for (int epoch = 0; epoch < 2; ++epoch) {
        join(ddp, [&] {
          for (int step = 0; step < 2 + comm.rank(); ++step) {
            sgd.zero_grad();
            ddp.forward([&] { return plain_loss(net, comm.rank(), step); }).backward();
            sgd.step();
          }
        });
        CHECK(same_on_all(comm, values(nn::parameters(net))));
        CHECK(same_on_all(comm, gradients(net)));
      }
      if (kind > 0) CHECK(power->iter() == 2 * (1 + comm.size()));
    }
  });
}

TEST_CASE("two models in one join") {
  for_each_world([](Communicator& comm) {
    Net a = seeded(), b = seeded(), alone = seeded();
    Ddp one(comm, nn::parameters(a)), two(comm, nn::parameters(b));
    const auto step = [&](Ddp& ddp, Net& net, int i) {
      nn::zero_grad(net);
      ddp.forward([&] { return plain_loss(net, comm.rank(), i); }).backward();
      const NoGrad off;
      for (const NamedTensor& p : nn::parameters(net)) p.tensor.sub_(p.tensor.grad(), 0.1);
    };
    const auto count = [](int r) { return 1 + 2 * r; };
    join({&one, &two}, [&] {
      for (int i = 0; i < count(comm.rank()); ++i) {
        step(one, a, i);
        if (i % 2 == 0) step(two, b, i / 2);
      }
    });
    train_alone(alone, comm.size(), true, count, plain_loss);
    CHECK(max_difference(values(nn::parameters(a)), values(nn::parameters(alone))) < 1e-5);
    Net other = seeded();
    train_alone(
        other, comm.size(), true, [](int r) { return 1 + r; }, plain_loss);
    CHECK(max_difference(values(nn::parameters(b)), values(nn::parameters(other))) < 1e-5);
    CHECK(same_on_all(comm, values(nn::parameters(a))));
    CHECK(same_on_all(comm, values(nn::parameters(b))));

    CHECK(contains(error_of([&] { join({}, [] {}); }), "no model given"));
    CHECK(contains(error_of([&] { join({&one, &one}, [] {}); }), "a model is in a join already"));
    CHECK(contains(error_of([&] { join(one, [&] { join({&two, &one}, [] {}); }); }), "a model is in a join already"));
    CHECK(!two.joined());
    CHECK(!one.joined());
    bool ran = false;
    CHECK(!join(one, [&] { ran = !one.joined(); }, {.enable = false}).uneven);
    CHECK(ran);
  });
}

TEST_CASE("ranks that go different ways are told so") {
  for_each_world([](Communicator& comm) {
    if (comm.size() == 1) return;
    Net a = seeded(), b = seeded();
    Ddp one(comm, nn::parameters(a)), two(comm, nn::parameters(b));
    const auto backward = [&](Ddp& ddp, Net& net) { ddp.forward([&] { return plain_loss(net, 0, 0); }).backward(); };
    const std::string text = error_of([&] {
      join({&one, &two}, [&] {
        if (comm.rank() == 0)
          backward(one, a);
        else
          backward(two, b);
      });
    });
    CHECK(contains(text, "join: rank 0 and rank 1 announce different collectives"));
  });
}
