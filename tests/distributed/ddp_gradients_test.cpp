// SPDX-License-Identifier: Apache-2.0
// Values: against single processes, of parameters of every kind.
#include <loom/accelerators/memory.h>
#include <loom/nn/optim/adam.h>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

struct Kinds {
  Parameter none{zeros({0, 3})}, half{full({5}, 0.5, f16)}, scalar{full({}, 2)};
  Parameter turned{samples(0, 3, 4).t()};  // [4, 3], strides [1, 4]
  Parameter channels_last{samples(9, 2 * 5 * 5, 3).reshape({2, 5, 5, 3}).permute({0, 3, 1, 2})};
  Tensor operator()(const Tensor& x) const {
    return (matmul(x, turned).sum() + square(channels_last).sum()) * scalar + (none * 3.0).sum() +
           (half * x.sum().to(f16)).sum().to(f32);
  }
  LOOM_MEMBERS(none, half, scalar, turned, channels_last)
};

struct Tied {
  nn::Linear a{4, 4}, b{4, 4};
  Tied() { nn::tie(a.weight, b.weight); }
  Tensor operator()(const Tensor& x) const { return b(tanh(a(x))); }
  LOOM_MEMBERS(a, b)
};

}  // namespace

TEST_CASE("11: gradients are the mean of the shards' gradients, exactly") {
  for_each_world([](Communicator& comm) {
    for (const DType dtype : {f32, f64})
      for (const bool views : {true, false}) {
        Net net = seeded(dtype), alone = seeded(dtype);
        const auto expected =
            mean_of_ranks(alone, comm.size(), [&](int r) { loss_of(alone, 4 * r, 4, dtype).backward(); });
        Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 1e-3, .gradient_as_bucket_view = views});
        for (int step = 0; step < 3; ++step) {
          nn::zero_grad(net);
          ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4, dtype); }).backward();
          CHECK(equal_all(gradients(net), expected));
        }
      }
  });
}

TEST_CASE("11: ten steps of Adam: equal on all ranks, and as one process on the whole batch") {
  for_each_world([](Communicator& comm) {
    for (const DType dtype : {f32, f64}) {
      const int64_t rows = 8;
      Net net = seeded(dtype), alone = seeded(dtype);
      Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 1e-3});
      optim::Adam adam(nn::parameters(net)), single(nn::parameters(alone));
      for (int step = 0; step < 10; ++step) {
        const int64_t begin = 1000 * step;
        adam.zero_grad();
        ddp.forward([&] { return loss_of(net, begin + rows * comm.rank(), rows, dtype); }).backward();
        adam.step();
        single.zero_grad();
        loss_of(alone, begin, rows * comm.size(), dtype).backward();
        single.step();
      }
      CHECK(same_on_all(comm, values(nn::parameters(net))));
      CHECK(max_difference(values(nn::parameters(net)), values(nn::parameters(alone))) < 1e-6);
    }
  });
}

TEST_CASE("16: tied parameters are reduced once") {
  for_each_world([](Communicator& comm) {
    Tied net = seeded<Tied>(), alone = seeded<Tied>();
    const auto run = [](const Tied& m, int r) { return m(samples(4 * r, 4, 4)).sum(); };
    const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { run(alone, r).backward(); });
    std::vector<NamedTensor> listed = nn::parameters(net);
    CHECK(listed.size() == 3);
    listed.push_back({"b.weight", net.b.weight});
    Ddp ddp(comm, listed);
    CHECK(ddp.statistics().parameters == 3);
    for (int step = 0; step < 3; ++step) {
      nn::zero_grad(net);
      ddp.forward([&] { return run(net, comm.rank()); }).backward();
      CHECK(equal_all(gradients(net), expected));
    }
  });
}

TEST_CASE("frozen parameters are left alone") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), alone = seeded();
    nn::freeze(net.first);
    nn::freeze(alone.first);
    const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { loss_of(alone, 4 * r, 4).backward(); });
    Ddp ddp(comm, nn::parameters(net));
    CHECK(ddp.statistics().parameters == 4);
    ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward();
    CHECK(equal_all(gradients(net), expected));
    CHECK(!net.first.weight.grad().defined());
  });
}

TEST_CASE("30: gradients live in the bucket") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), alone = seeded();
    const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { loss_of(alone, 4 * r, 4).backward(); });
    Ddp ddp(comm, nn::parameters(net));
    const auto step = [&] { ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward(); };
    const auto in_bucket = [&] {
      const auto parameters = nn::parameters(net);
      for (const NamedTensor& p : parameters)
        if (p.tensor.grad().storage() != parameters[0].tensor.grad().storage()) return false;
      return parameters[0].tensor.grad().storage()->bytes() == static_cast<size_t>(ddp.statistics().parameter_bytes);
    };
    for (int i = 0; i < 3; ++i) {  // set to none
      nn::zero_grad(net);
      CHECK(!net.first.weight.grad().defined());
      step();
      CHECK(in_bucket());
      CHECK(equal_all(gradients(net), expected));
    }
    for (const NamedTensor& p : nn::parameters(net)) p.tensor.grad().zero_();  // or to zero
    step();
    CHECK(in_bucket());
    CHECK(equal_all(gradients(net), expected));

    // A gradient that somebody replaced is copied in: it counts, and is in the bucket again.
    net.second.weight.set_grad(zeros_like(net.second.weight));
    for (const NamedTensor& p : nn::parameters(net))
      if (p.name != "second.weight") p.tensor.grad().zero_();
    step();
    CHECK(in_bucket());
    CHECK(equal_all(gradients(net), expected));
    net.second.weight.set_grad({});
    step();
    CHECK(in_bucket());
    CHECK(same_numbers(net.second.weight.grad(), expected[2]));
  });
}

TEST_CASE("30: which saves the gradients' size in memory") {
  std::vector<int64_t> bytes;
  for (const bool views : {false, true}) {
    const auto comm = self_communicator();
    Net net = seeded<Net>(f32, int64_t{512});
    const int64_t before = memory_stats().allocated;
    Ddp ddp(*comm, nn::parameters(net), {}, {.gradient_as_bucket_view = views});
    for (int step = 0; step < 2; ++step) ddp.forward([&] { return loss_of(net, 0, 4); }).backward();
    bytes.push_back(memory_stats().allocated - before);
  }
  const auto gradient_bytes = static_cast<double>(4 * nn::parameter_count(seeded<Net>(f32, int64_t{512})));
  CHECK(static_cast<double>(bytes[0] - bytes[1]) == doctest::Approx(gradient_bytes).epsilon(0.1));
}

TEST_CASE("30: products are written into the buckets, not copied there") {
  const auto comm = self_communicator();
  Net net = seeded<Net>(f32, int64_t{512});
  Ddp ddp(*comm, nn::parameters(net));
  for (int step = 0; step < 4; ++step) {  // the buckets are rebuilt before the second forward
    nn::zero_grad(net);
    const Tensor loss = ddp.forward([&] { return loss_of(net, 0, 4); });
    reset_peak_memory_stats();
    const int64_t before = memory_stats().allocated;
    loss.backward();
    const int64_t weight_bytes = net.second.weight.numel() * 4;
    CHECK(memory_stats().peak_allocated - before < weight_bytes / 2);
  }
}

TEST_CASE("31 32 33: parameters without elements, of several dtypes, of other strides") {
  for_each_world([](Communicator& comm) {
    for (const bool views : {true, false}) {
      Kinds net = seeded<Kinds>(), alone = seeded<Kinds>();
      const auto run = [](const Kinds& m, int r) { return m(samples(4 * r, 2, 4)); };
      std::vector<Tensor> halves;  // added up in f32, rounded once
      for (int r = 0; r < comm.size(); ++r) {
        nn::zero_grad(alone);
        run(alone, r).backward();
        halves.push_back(alone.half.grad().to(f32));
      }
      Tensor half = halves[0];
      for (size_t r = 1; r < halves.size(); ++r) half = half + halves[r];
      const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { run(alone, r).backward(); });
      Ddp ddp(comm, nn::parameters(net), {}, {.gradient_as_bucket_view = views});
      CHECK(ddp.statistics().buckets == std::vector<std::vector<int>>{{1}, {0, 2, 3, 4}});
      for (int step = 0; step < 3; ++step) {
        nn::zero_grad(net);
        ddp.forward([&] { return run(net, comm.rank()); }).backward();
        CHECK(net.none.grad().shape() == Dims{0, 3});
        CHECK(net.half.grad().dtype() == f16);
        CHECK(same_numbers(net.half.grad(), (half / comm.size()).to(f16)));
        CHECK(equal_all({net.scalar.grad(), net.turned.grad(), net.channels_last.grad()},
                        {expected[2], expected[3], expected[4]}));
        if (views) CHECK(net.turned.grad().strides() == net.turned.strides());
        if (views) CHECK(net.channels_last.grad().strides() == Dims{75, 1, 15, 3});
      }
    }
  });
}

TEST_CASE("46: a model's state has no prefix and loads into the bare model") {
  for_each_world([](Communicator& comm) {
    Net net = seeded();
    Ddp ddp(comm, nn::parameters(net));
    ddp.forward([&] { return loss_of(net, 0, 4); }).backward();
    std::map<std::string, Tensor> state;
    for (const NamedTensor& s : nn::state_dict(net)) state[s.name] = s.tensor + 1.0;
    CHECK(state.contains("first.weight"));
    Net bare(f32);
    nn::load_state_dict(bare, state);
    for (const NamedTensor& s : nn::state_dict(bare)) CHECK(equal(s.tensor, state[s.name]));
    nn::load_state_dict(net, state);  // in place: DDP goes on
    nn::zero_grad(net);
    ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward();
    const auto expected = mean_of_ranks(bare, comm.size(), [&](int r) { loss_of(bare, 4 * r, 4).backward(); });
    CHECK(equal_all(gradients(net), expected));
  });
}
