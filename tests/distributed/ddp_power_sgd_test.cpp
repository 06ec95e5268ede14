// SPDX-License-Identifier: Apache-2.0
// PowerSGD: what is exact, what is made up for, and what a checkpoint keeps.
#include <loom/distributed/power_sgd.h>

#include <algorithm>
#include <limits>

#include <loom/distributed/default_hooks.h>
#include <loom/nn/optim/sgd.h>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

std::shared_ptr<PowerSgdHook> hook_with(const PowerSgdOptions& options) {
  return std::make_shared<PowerSgdHook>(options);
}
constexpr PowerSgdOptions at_once{.start_powerSGD_iter = 0};

// One matrix and one vector, whose gradients are what the test wants.
struct Direct {
  Parameter weight{zeros({12, 10})}, bias{zeros({5})};
  Tensor operator()(const Tensor& g) const { return (weight * g).sum() + (bias * g.narrow(0, 0, 1).sum()).sum(); }
  LOOM_MEMBERS(weight, bias)
};

// A gradient that differs by rank and step.
Tensor target(int rank, int step) { return samples(40 * step + 13 * rank, 12, 10) + 0.5; }

Tensor mean_target(int ranks, int step) {
  Tensor total = target(0, step);
  for (int r = 1; r < ranks; ++r) total = total + target(r, step);
  return total / ranks;
}

double largest(const Tensor& x) { return abs(x).max().item<double>(); }

// The mean of the errors that the ranks keep.
Tensor mean_error(const PowerSgdHook& hook, const std::string& name = "weight") {
  const auto state = hook.state_dict();
  const auto found = state.find("error." + name);
  return found == state.end() ? Tensor() : mean(found->second, {0});
}

// The direct model under a hook, a step at a time.
struct Stepper {
  Stepper(Communicator& comm, std::shared_ptr<CommHook> hook, DdpOptions options = {}) : comm(comm) {
    options.comm_hook = std::move(hook);
    ddp.emplace(comm, nn::parameters(net), std::vector<NamedTensor>{}, options);
  }
  Tensor step(const Tensor& gradient) {
    nn::zero_grad(net);
    ddp->forward([&] { return net(gradient); }).backward();
    CHECK(same_on_all(comm, gradients(net)));
    return net.weight.grad().clone();
  }
  Communicator& comm;
  Direct net;
  std::optional<Ddp> ddp;
};

// How far 120 steps bring the loss down, over all ranks.
double gain(Communicator& comm, std::shared_ptr<CommHook> hook, const DdpOptions& given = {}) {
  Net net = seeded();
  DdpOptions options = given;
  options.comm_hook = std::move(hook);
  Ddp ddp(comm, nn::parameters(net), {}, options);
  optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
  std::vector<double> losses;
  for (int step = 0; step < 120; ++step) {
    sgd.zero_grad();
    const Tensor loss = ddp.forward([&] { return loss_of(net, 8 * comm.rank(), 8); });
    loss.backward();
    sgd.step();
    losses.push_back(loss.item<double>());
  }
  double out = losses.front() - losses.back();
  comm.all_reduce(view_over(&out, f64, {1}), ReduceOp::mean).wait();
  return out;
}

}  // namespace

TEST_CASE("41: gradients of rank one come out as they are") {
  for_each_world([](Communicator& comm) {
    for (const int rank : {1, 2, 3}) {
      auto hook = hook_with({.matrix_approximation_rank = rank, .start_powerSGD_iter = 0, .min_compression_rate = 1});
      Stepper s(comm, hook);
      const Tensor row = samples(0, 1, 10) + 0.25;
      for (int step = 0; step < 4; ++step) {
        const auto column = [&](int r) { return samples(12 * r + step, 12, 1); };
        Tensor expected = zeros({12, 10});
        for (int r = 0; r < comm.size(); ++r) expected = expected + matmul(column(r), row) / comm.size();
        CHECK(largest(s.step(matmul(column(comm.rank()), row)) - expected) < 1e-5);
      }
      CHECK(hook->compression_stats().numel_before == 4 * 125);
      CHECK(hook->compression_stats().numel_after == 4 * (22 * rank + 5));
    }
  });
}

TEST_CASE("41: before start_powerSGD_iter, and for what is not worth it, plain averages") {
  for_each_world([](Communicator& comm) {
    const auto hook = hook_with({.start_powerSGD_iter = 3});
    Stepper s(comm, hook), plain(comm, nullptr);
    for (int step = 0; step < 5; ++step) {
      const Tensor found = s.step(target(comm.rank(), step)), expected = plain.step(target(comm.rank(), step));
      CHECK(equal(found, expected) == (step < 3));
      CHECK(equal(s.net.bias.grad(), plain.net.bias.grad()));
    }
    CHECK(hook->iter() == 5);
    Stepper strict(comm, hook_with({.start_powerSGD_iter = 0, .min_compression_rate = 5.5}));
    CHECK(equal(strict.step(target(comm.rank(), 0)), plain.step(target(comm.rank(), 0))));
  });
}

TEST_CASE("41: what a step misses comes with the next ones") {
  for_each_world([](Communicator& comm) {
    for (const bool feedback : {true, false}) {
      const auto hook = hook_with({.start_powerSGD_iter = 1, .use_error_feedback = feedback});
      Stepper s(comm, hook);
      Tensor reduced = zeros({12, 10}), expected = zeros({12, 10});
      for (int step = 0; step < 12; ++step) {
        reduced = reduced + s.step(target(comm.rank(), step));
        expected = expected + mean_target(comm.size(), step);
        const Tensor error = mean_error(*hook);
        CHECK(error.defined() == (feedback && step >= 1));
        if (!error.defined()) continue;
        CHECK(largest(reduced + error - expected) < 1e-4);
        CHECK(largest(reduced - expected) <= largest(error) + 1e-4);
      }
      if (!feedback) CHECK(largest(reduced - expected) > 1);
    }
  });
}

TEST_CASE("41: with warm start the approximation gets better, without it each step draws anew") {
  for_each_world([](Communicator& comm) {
    const Tensor truth = mean_target(comm.size(), 0);
    const auto misses = [&](bool warm) {
      Stepper s(comm, hook_with({.start_powerSGD_iter = 0, .use_error_feedback = false, .warm_start = warm}));
      std::vector<double> out;
      out.reserve(8);
      for (int step = 0; step < 8; ++step)
        out.push_back((s.step(target(comm.rank(), 0)) - truth).norm().item<double>());
      return out;
    };
    const auto warm = misses(true), cold = misses(false);
    CHECK(warm.front() == cold.front());
    CHECK(warm.back() < warm.front());
    CHECK(warm.back() < cold.back());
    CHECK(cold[1] != cold[2]);
  });
}

TEST_CASE("41: buckets and the graph's options change no bit; random numbers are left alone") {
  for_each_world([](Communicator& comm) {
    const auto run = [&](const DdpOptions& options) {
      Net net = seeded();
      DdpOptions with_hook = options;
      with_hook.comm_hook = hook_with({.start_powerSGD_iter = 0});
      Ddp ddp(comm, nn::parameters(net), {}, with_hook);
      const Generator before = context().generator;
      for (int step = 0; step < 4; ++step) {
        nn::zero_grad(net);
        if (step == 2) {
          const auto guard = ddp.no_sync();
          ddp.forward([&] { return loss_of(net, 70 + 4 * comm.rank(), 4); }).backward();
        }
        ddp.forward([&] { return loss_of(net, 9 * step + 4 * comm.rank(), 4); }).backward();
        CHECK(same_on_all(comm, gradients(net)));
      }
      CHECK(context().generator == before);
      return gradients(net);
    };
    const auto expected = run({});
    CHECK(equal_all(run({.bucket_cap_mb = 1e-4}), expected));
    CHECK(equal_all(run({.bucket_cap_mb = 1e-4, .static_graph = true}), expected));
    CHECK(equal_all(run({.bucket_cap_mb = 1e-4, .find_unused_parameters = true, .warn = [](const std::string&) {}}),
                    expected));
    CHECK(equal_all(run({.gradient_as_bucket_view = false}), expected));
  });
}

TEST_CASE("41: zeros, dependent columns and permuted parameters") {
  for_each_world([](Communicator& comm) {
    Stepper s(comm, hook_with({.matrix_approximation_rank = 3, .start_powerSGD_iter = 0, .min_compression_rate = 1}));
    CHECK(largest(s.step(zeros({12, 10}))) == 0);
    Tensor two = zeros({12, 10});
    two.narrow(0, 2, 1).fill_(3);
    two.narrow(0, 7, 1).copy_(samples(1, 1, 10));
    CHECK(largest(s.step(two) - two) < 1e-5);  // after zeros, from a Q of zeros

    Parameter permuted(zeros({3, 4, 8}).permute({2, 0, 1}));  // [8, 3, 4], strides 1, 32, 8
    Ddp ddp(comm, {{"permuted", permuted}}, {},
            {.comm_hook = hook_with({.start_powerSGD_iter = 0, .min_compression_rate = 1})});
    const Tensor block = samples(5, 3, 1).reshape({1, 3, 1}), rest = samples(2, 8, 4).reshape({8, 1, 4});
    ddp.forward([&] { return (permuted * (block * rest)).sum(); }).backward();
    CHECK(largest(permuted.grad() - block * rest) < 1e-5);  // rank one along the slowest dimension
  });
}

TEST_CASE("41: an overflow shows on all ranks and is forgotten") {
  for_each_world([](Communicator& comm) {
    const auto hook = hook_with(at_once), other = hook_with(at_once);
    Stepper s(comm, hook), calm(comm, other);
    for (int step = 0; step < 5; ++step) {
      if (step == 2) {
        Tensor bad = target(comm.rank(), 9).clone();
        if (comm.rank() == 0) bad.narrow(0, 3, 1).fill_(std::numeric_limits<double>::infinity());
        CHECK(!std::isfinite(s.step(bad).sum().item<double>()));
      }
      CHECK(equal(s.step(target(comm.rank(), step)), calm.step(target(comm.rank(), step))));
    }
  });
}

namespace {

// Matrices whose gradients are what the test wants, in a dtype, each in a bucket of its own; and a vector.
struct Several {
  explicit Several(DType dtype, const Dims& shape = {12, 10})
      : first(zeros(shape, dtype)), second(zeros(shape, dtype)), bias(zeros({5}, dtype)) {}
  Parameter first, second, bias;
  LOOM_MEMBERS(first, second, bias)
};

struct SeveralStepper {
  SeveralStepper(Communicator& comm, std::shared_ptr<CommHook> hook, DType dtype, const Dims& shape = {12, 10})
      : net(dtype, shape),
        ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 1e-4, .comm_hook = std::move(hook)}),
        comm(comm) {}
  // The means, in f64.
  std::vector<Tensor> step(const Tensor& first, const Tensor& second, double bias = 1) {
    nn::zero_grad(net);
    const auto part = [](const Parameter& p, const Tensor& g) { return (p * g.to(p.dtype())).sum(); };
    ddp.forward([&] { return part(net.first, first) + part(net.second, second) + part(net.bias, full({5}, bias)); })
        .backward();
    CHECK(same_on_all(comm, gradients(net)));
    std::vector<Tensor> out;
    for (const Tensor& g : gradients(net)) out.push_back(g.to(f64));
    return out;
  }
  Several net;
  Ddp ddp;
  Communicator& comm;
};

bool finite(const Tensor& x) { return std::isfinite(abs(x.to(f64)).sum().item<double>()); }
bool finite(const PowerSgdHook& hook) {
  const auto state = hook.state_dict();
  return std::ranges::all_of(state, [](const auto& named) { return finite(named.second); });
}

// Gradients whose products with unit columns fit f16, and those with unit rows do not.
const Dims tall = {1000, 4};
Tensor tall_gradient(int rank, int step, double size) {
  return samples(1000 * step + 17 * rank, 1000, 4) * 0.1 * size + size;
}

// f16 by itself, and f32 through the wrapper: a hook for it, and the parameters' dtype.
using Wrapping = std::function<std::shared_ptr<CommHook>(std::shared_ptr<PowerSgdHook>)>;
void for_each_half(const std::function<void(const Wrapping&, DType)>& f) {
  f([](auto hook) { return hook; }, f16);
  f([](auto hook) { return fp16_compress_wrapper(hook); }, f32);
}

}  // namespace

TEST_CASE("41: an overflow of the second leg in f16 is forgotten, whichever ranks it is on") {
  for_each_world([](Communicator& comm) {
    for_each_half([&](const Wrapping& wrap, DType dtype) {
      for (const bool everywhere : {true, false}) {
        const auto hook = hook_with(at_once), other = hook_with(at_once), resumed = hook_with(at_once);
        SeveralStepper s(comm, wrap(hook), dtype, tall), calm(comm, wrap(other), dtype, tall);
        for (int step = 0; step < 5; ++step) {
          const Tensor g = tall_gradient(comm.rank(), step, 1);
          if (step == 2) {
            const bool here = everywhere || comm.rank() == comm.size() - 1;
            CHECK(!finite(s.step(here ? tall_gradient(comm.rank(), 9, 5000.0 * comm.size()) : g, g)[0]));
          }
          CHECK(equal_all(s.step(g, g), calm.step(g, g)));
        }
        CHECK(finite(*hook));
        SeveralStepper again(comm, wrap(resumed), dtype, tall);
        resumed->load_state_dict(hook->state_dict());
        const Tensor g = tall_gradient(comm.rank(), 5, 1);
        CHECK(equal_all(again.step(g, g), calm.step(g, g)));
      }
    });
  });
}

TEST_CASE("41: an overflow in the first step leaves no trace in what comes after") {
  for_each_world([](Communicator& comm) {
    for_each_half([&](const Wrapping& wrap, DType dtype) {
      const auto hook = hook_with(at_once);
      SeveralStepper s(comm, wrap(hook), dtype, tall);
      Tensor reduced = zeros(tall, f64), expected = zeros(tall, f64);
      for (int step = 0; step < 8; ++step) {
        const double size = step == 0 ? 5000 : 1;
        const Tensor found = s.step(tall_gradient(comm.rank(), step, size), zeros(tall))[0];
        CHECK(finite(found) == (step > 0));
        if (step == 0) continue;
        reduced = reduced + found;
        for (int r = 0; r < comm.size(); ++r)
          expected = expected + tall_gradient(r, step, 1).to(f64) / static_cast<double>(comm.size());
      }
      CHECK(largest(reduced + mean_error(*hook, "first").to(f64) - expected) < 0.05);
    });
  });
}

TEST_CASE("41: an overflow anywhere leaves the state of every parameter as it was") {
  for_each_world([](Communicator& comm) {
    const double infinite = std::numeric_limits<double>::infinity();
    for (const DType dtype : {f32, f16})
      for (const int where : {0, 1, 2}) {
        const auto hook = hook_with(at_once), other = hook_with(at_once);
        SeveralStepper s(comm, hook, dtype), calm(comm, other, dtype);
        for (int step = 0; step < 4; ++step) {
          const Tensor g = target(comm.rank(), step), h = target(comm.rank(), step + 50);
          if (step == 2) {
            const bool here = comm.rank() == 0;
            const Tensor bad = full({12, 10}, infinite);
            const auto means =
                s.step(here && where == 0 ? bad : g, here && where == 1 ? bad : h, here && where == 2 ? infinite : 1);
            for (int i = 0; i < 3; ++i) CHECK(finite(means[static_cast<size_t>(i)]) == (i != where));
          }
          CHECK(equal_all(s.step(g, h), calm.step(g, h)));
        }
      }
  });
}

TEST_CASE("41: an error that overflows on one rank alone is given up there") {
  for_each_world([](Communicator& comm) {
    for_each_half([&](const Wrapping& wrap, DType dtype) {
      const auto hook = hook_with(at_once);
      SeveralStepper s(comm, wrap(hook), dtype);
      Tensor q = zeros({10, 1}), left = zeros({12, 1}), big = zeros({12, 10});
      q.narrow(0, 1, 1).fill_(1);
      left.narrow(0, 0, 1).fill_(-0.5);
      left.narrow(0, 1, 3).fill_(0.5);
      big.narrow(1, 1, 1).copy_(left * 100.0);
      // Orthogonal to `left` this column has elements of 90000.
      if (comm.rank() == 0) big.narrow(0, 0, 4).narrow(1, 0, 1).fill_(60000);
      hook->load_state_dict({{"iter", tensor({1}, i64).reshape({})}, {"q.first", q}});
      CHECK(finite(s.step(big, zeros({12, 10}))[0]));
      const Tensor errors = hook->state_dict().at("error.first");
      CHECK(finite(errors));
      CHECK(largest(errors[0]) == 0);
      for (int step = 1; step < 4; ++step) CHECK(finite(s.step(target(comm.rank(), step), zeros({12, 10}))[0]));
    });
  });
}

TEST_CASE("41: what was kept and overflows by itself is forgotten in the end, also by a resumed run") {
  for_each_world([](Communicator& comm) {
    for_each_half([&](const Wrapping& wrap, DType dtype) {
      const auto hook = hook_with(at_once), resumed = hook_with(at_once);
      SeveralStepper s(comm, wrap(hook), dtype, {1000, 8}), again(comm, wrap(resumed), dtype, {1000, 8});
      const Tensor none = zeros({1000, 8}), small = samples(1000 * comm.rank(), 1000, 8);
      const Tensor one = full({8, 1}, 1.0), large = full({comm.size(), 1000, 8}, 5000.0);
      hook->load_state_dict({{"iter", tensor({1}, i64).reshape({})}, {"q.first", one}, {"error.first", large}});
      CHECK(!finite(s.step(small, none)[0]));
      CHECK(hook->state_dict().contains("error.first"));
      resumed->load_state_dict(hook->state_dict());
      for (SeveralStepper* const run : {&s, &again}) {
        CHECK(!finite(run->step(small, none)[0]));
        CHECK(finite(run->step(small, none)[0]));
      }
      CHECK(equal_all(s.step(small, none), again.step(small, none)));
      CHECK(!hook->state_dict().contains("overflowed.first"));
    });
  });
}

TEST_CASE("41: a checkpoint goes on bit for bit, and on other ranks with the same means") {
  for_each_world([](Communicator& comm) {
    const auto hook = hook_with(at_once), resumed = hook_with(at_once), fewer = hook_with(at_once);
    Stepper s(comm, hook);
    for (int step = 0; step < 3; ++step) s.step(target(comm.rank(), step));
    auto state = hook->state_dict();
    CHECK(state.size() == 3);
    CHECK(state.at("error.weight").shape() == Dims{comm.size(), 12, 10});

    Stepper again(comm, resumed), elsewhere(comm, fewer);
    resumed->load_state_dict(state);
    auto doubled = state;  // as if there had been twice as many ranks
    doubled["error.weight"] = cat({state["error.weight"] - 1, state["error.weight"] + 1}, 0);
    fewer->load_state_dict(doubled);
    CHECK(largest(mean_error(*fewer) - mean_error(*hook)) < 1e-5);
    for (int step = 3; step < 6; ++step) {
      const Tensor expected = s.step(target(comm.rank(), step));
      CHECK(equal(again.step(target(comm.rank(), step)), expected));
      CHECK(largest(elsewhere.step(target(comm.rank(), step)) - expected) < 1e-4);
    }

    const auto refused = [&](const std::string& name, const Tensor& value) {
      auto wrong = state;
      wrong[name] = value;
      return error_of([&] { hook->load_state_dict(wrong); });
    };
    CHECK(contains(refused("q.weight", zeros({10, 2})), "'q.weight' has shape [10, 2], expected [10, 1]"));
    CHECK(contains(refused("error.weight", zeros({12, 10})), "expected ranks and [12, 10]"));
    CHECK(contains(refused("q.bias", zeros({5, 1})), "'q.bias', which is of no parameter"));
    state.erase("iter");
    CHECK(contains(error_of([&] { hook->load_state_dict(state); }), "no 'iter'"));
    CHECK(contains(error_of([&] { static_cast<void>(PowerSgdHook().state_dict()); }), "no model uses this hook yet"));
  });
}

TEST_CASE("41: the state for a checkpoint comes to one rank alone") {
  for_each_world([](Communicator& comm) {
    const auto hook = hook_with({.start_powerSGD_iter = 0, .min_compression_rate = 1});
    Parameter permuted(zeros({3, 4, 8}).permute({2, 0, 1}));
    Ddp ddp(comm, {{"permuted", permuted}}, {}, {.comm_hook = hook});
    ddp.forward([&] { return (permuted * samples(comm.rank(), 8, 12).reshape({8, 3, 4})).sum(); }).backward();
    const auto all = hook->state_dict();
    CHECK(all.at("error.permuted").shape() == Dims{comm.size(), 8, 3, 4});
    for (int root = 0; root < comm.size(); ++root) {
      const auto state = hook->state_dict_on(root);
      CHECK(state.empty() == (comm.rank() != root));
      CHECK((state.empty() || std::ranges::equal(state, all, [](const auto& a, const auto& b) {
               return a.first == b.first && equal(a.second, b.second);
             })));
    }
  });
}

TEST_CASE("41: one hook, one model; options that cannot be") {
  for_each_world([](Communicator& comm) {
    const auto hook = hook_with(at_once);
    {
      Stepper s(comm, hook);
      Net net = seeded();
      const auto text = [&](const std::shared_ptr<CommHook>& h) {
        return error_of([&] { Ddp(comm, nn::parameters(net), {}, {.comm_hook = h}); });
      };
      CHECK(contains(text(hook), "keeps state of the model that it serves already"));
    }
    Stepper next(comm, hook);  // the first is gone
    next.step(target(comm.rank(), 0));
    CHECK(contains(error_of([] { PowerSgdHook({.matrix_approximation_rank = 0}); }), "expected at least 1"));
    CHECK(contains(error_of([] { PowerSgdHook({.start_powerSGD_iter = -1}); }), "expected 0 or more"));
    CHECK(contains(error_of([] { PowerSgdHook({.min_compression_rate = 0}); }), "expected more than 0"));
    CHECK(contains(error_of([] { PowerSgdHook({.orthogonalization_epsilon = -1}); }), "expected 0 or more"));
  });
}

TEST_CASE("compressed gradients train as well") {
  for_each_world([](Communicator& comm) {
    const double plain = gain(comm, nullptr);
    const auto power = [](int64_t start) {
      return hook_with({.matrix_approximation_rank = 2, .start_powerSGD_iter = start, .min_compression_rate = 1});
    };
    const auto close = [&](double found, double tolerance) { CHECK(std::abs(found / plain - 1) < tolerance); };
    CHECK(plain > 0.1);
    close(gain(comm, fp16_compress_hook()), 1e-3);
    close(gain(comm, bf16_compress_hook()), 1e-2);
    close(gain(comm, power(10)), 0.05);
    close(gain(comm, fp16_compress_wrapper(power(10)), {.bucket_cap_mb = 1e-4}), 0.05);
    close(gain(comm, bf16_compress_wrapper(power(0))), 0.05);
  });
}
