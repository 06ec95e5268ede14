// SPDX-License-Identifier: Apache-2.0
// What ranks must have in common at construction.
#include "ddp_models.h"

using namespace ddp_test;

namespace {

Tensor trained(const Dims& shape, double value = 0) {
  Tensor x = full(shape, value);
  return x.requires_grad_();
}

// The error of construction, which must be the same on all ranks.
std::string common_error(Communicator& comm, const std::vector<NamedTensor>& parameters,
                         const std::vector<NamedTensor>& buffers = {}) {
  std::string text = error_of([&] { const Ddp ddp(comm, parameters, buffers); });
  for (const std::string& other : comm.all_gather_bytes(text)) CHECK(other == text);
  return text;
}

}  // namespace

TEST_CASE("12: all start from rank 0's values, unless told not to") {
  for_each_world([](Communicator& comm) {
    const double own = 10 + comm.rank();
    for (const bool init_sync : {true, false}) {
      const double expected = init_sync ? 10 : own;
      const Tensor a = trained({3, 2}, own), b = trained({5}, own), frozen = full({4}, own), empty = trained({0});
      const Tensor half = full({2, 2}, own, f16), counter = full({}, own, i64), strided = full({3, 4}, own).t();
      {
        const Ddp ddp(comm, {{"a", a}, {"b", b}, {"frozen", frozen}, {"empty", empty}},
                      {{"half", half}, {"counter", counter}, {"strided", strided}}, {.init_sync = init_sync});
      }
      for (const Tensor& t : {a, b, frozen, half, counter, strided})
        for (const double v : t.to_vector<double>()) CHECK(v == expected);
    }
  });
}

TEST_CASE("13: another number of parameters is an error on every rank") {
  for_each_world([](Communicator& comm) {
    if (comm.size() == 1) return;
    std::vector<NamedTensor> parameters{{"weight", trained({2})}};
    if (comm.rank() == 1) parameters.push_back({"extra", trained({3})});
    const auto start = std::chrono::steady_clock::now();
    const std::string text = common_error(comm, parameters);
    CHECK(contains(text,
                   "DDP expects same model across all ranks, but Rank 0 has 1 params, while rank 1 has "
                   "inconsistent 2 params."));
    CHECK(contains(text, "extra"));
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
  });
}

TEST_CASE("14: another shape, dtype, name or requires_grad is an error on every rank, with the parameter's name") {
  for_each_world([](Communicator& comm) {
    if (comm.size() == 1) return;
    const bool odd = comm.rank() == comm.size() - 1;
    const std::string last = str('[', comm.size() - 1, "]: ");
    const NamedTensor same{"first", trained({2})};
    CHECK(common_error(comm, {same, {"fc.weight", odd ? trained({5, 3}) : trained({3, 5})}}) ==
          last +
              "params[1] (fc.weight) in this process with sizes [5, 3] appears not to match sizes [3, 5] of the same "
              "params in process 0.");
    CHECK(contains(
        common_error(comm, {same, {"fc", odd ? trained({3, 5}).t().detach().requires_grad_() : trained({5, 3})}}),
        "strides [1, 5] appears"));
    CHECK(contains(common_error(comm, {same, {odd ? "fc1" : "fc2", trained({3})}}),
                   "name fc1 appears not to match name fc2"));
    CHECK(contains(common_error(comm, {same, {"fc", odd ? full({3}, 1) : trained({3})}}),
                   "requires_grad false appears not to match requires_grad true"));
    CHECK(contains(common_error(comm, {same}, {{"mean", odd ? full({3}, 1, f64) : full({3}, 1)}}),
                   "buffers[0] (mean) in this process with dtype f64 appears not to match dtype f32"));
  });
}

TEST_CASE("15: a model without trained parameters does not need DDP") {
  for_each_world([](Communicator& comm) {
    for (const std::vector<NamedTensor>& parameters : {std::vector<NamedTensor>{}, {{"frozen", full({3}, 1)}}})
      CHECK(common_error(comm, parameters) ==
            "DistributedDataParallel is not needed when a module doesn't have any parameter that requires a gradient.");
  });
}

TEST_CASE("after a failed construction another one works") {
  for_each_world([](Communicator& comm) {
    if (comm.size() > 1) CHECK(common_error(comm, {{"w", trained({comm.rank() + 1})}}) != "");
    const Tensor w = trained({2}, 1 + comm.rank());
    const Ddp ddp(comm, {{"w", w}});
    CHECK(w.to_vector<float>() == std::vector<float>{1, 1});
    CHECK(error_of([&] { const Ddp bad(comm, {{"w", w}}, {}, {.bucket_cap_mb = 0}); }) != "");
  });
}

TEST_CASE("parameters that are frozen or thawed after setup: an error that names them, nothing is lost, setup again") {
  for_each_world([](Communicator& comm) {
    for (const int iterations : {1, 3}) {  // before the buckets are rebuilt, and after
      Net net = seeded();
      nn::freeze(net.third);
      auto ddp = std::make_unique<Ddp>(comm, nn::parameters(net));
      for (int i = 0; i < iterations; ++i) {
        nn::zero_grad(net);
        ddp->forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward();
      }
      const auto before = gradients(nn::parameters(net.second));
      const auto common = [&] {
        std::string text = error_of([&] { ddp->forward([&] { return loss_of(net, 0, 4); }); });
        for (const std::string& other : comm.all_gather_bytes(text)) CHECK(other == text);
        return text;
      };
      nn::freeze(net.first);
      CHECK(common() ==
            "DDP: since the module was set up, these parameters have been frozen: first.weight, first.bias; freeze "
            "all that it trains, or set it up again");
      nn::freeze(net.third, false);
      CHECK(common() ==
            "DDP: since the module was set up, these parameters have been frozen: first.weight, first.bias; these have "
            "begun to require grad: third.weight, third.bias; set it up again");
      CHECK(equal_all(gradients(nn::parameters(net.second)), before));
      {
        const NoGrad off;
        ddp->forward([&] { return net(samples(0, 4, 6)); });
      }
      // As it was: goes on.
      nn::freeze(net.first, false);
      nn::freeze(net.third);
      nn::zero_grad(net);
      ddp->forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward();
      CHECK(equal_all(gradients(nn::parameters(net.second)), before));
      // Set up again: the new parameters are averaged, in the new setup's buckets, whichever goes first.
      nn::freeze(net.first);
      nn::freeze(net.third, false);
      nn::zero_grad(net);
      ddp = std::make_unique<Ddp>(comm, nn::parameters(net));
      ddp->forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward();
      CHECK(grad_buffer(net.third.weight).is_same(net.third.weight.grad()));
      CHECK_FALSE(net.first.weight.grad().defined());
      const Tensor mine = net.third.weight.grad().clone(), roots = mine.clone();
      comm.broadcast(roots, 0).wait();
      CHECK(equal(mine, roots));
    }
  });
}

TEST_CASE("a forward while all parameters are frozen is not synchronised, and its backward comes to none of them") {
  for_each_world([](Communicator& comm) {
    const int rank = comm.rank();
    for (const DdpOptions& options :
         {DdpOptions{}, DdpOptions{.find_unused_parameters = true, .warn = [](const std::string&) {}},
          DdpOptions{.static_graph = true}}) {
      Net net = seeded(), alone = seeded();
      nn::freeze(net.third);  // as it is set up: stays so
      nn::freeze(alone.third);
      Ddp ddp(comm, nn::parameters(net), {}, options);
      const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { loss_of(alone, 4 * r, 4).backward(); });
      const auto frozen = [&] {  // the gradient of its input, as without DDP
        nn::freeze(net);
        const Tensor x = samples(4 * rank, 4, 6).requires_grad_(), y = x.detach().requires_grad_();
        Tensor sum = ddp.forward([&] { return net(x); }).sum();
        nn::freeze(net, false);
        nn::freeze(net.third);
        sum.backward();
        alone(y).sum().backward();
        nn::zero_grad(alone);
        CHECK(equal(x.grad(), y.grad()));
      };
      for (int step = 0; step < 4; ++step) {
        frozen();
        nn::zero_grad(net);
        Tensor loss = ddp.forward([&] { return loss_of(net, 4 * rank, 4); });
        frozen();  // between a forward and its backward
        loss.backward();
        frozen();
        CHECK(equal_all(gradients(net), expected));
        CHECK(ddp.statistics().iterations == step + 1);
        CHECK(ddp.statistics().has_rebuilt == (step > 0 && !options.find_unused_parameters));
      }
      // Both in one backward; and where DDP cannot see what the forward returns.
      nn::zero_grad(net);
      Tensor loss = ddp.forward([&] { return loss_of(net, 4 * rank, 4); });
      nn::freeze(net);
      const Tensor x = samples(0, 4, 6).requires_grad_();
      loss = loss + ddp.forward([&] { return net(x); }).sum();
      nn::freeze(net, false);
      nn::freeze(net.third);
      loss.backward();
      CHECK(equal_all(gradients(net), expected));
      nn::zero_grad(net);
      Tensor hidden;
      ddp.forward([&] { hidden = loss_of(net, 4 * rank, 4); });
      frozen();
      hidden.backward();
      CHECK(equal_all(gradients(net), expected));
      // What was frozen at setup must stay so.
      nn::freeze(net);
      nn::freeze(net.third, false);
      CHECK(error_of([&] { ddp.forward([&] { return net(x); }); }) ==
            "DDP: since the module was set up, these have begun to require grad: third.weight, third.bias; set it up "
            "again");
    }
  });
}
