// SPDX-License-Identifier: Apache-2.0
// Communication hooks: what they see, in which order, and what comes out.
#include <loom/distributed/default_hooks.h>

#include <algorithm>
#include <stdexcept>

#include <loom/nn/optim/sgd.h>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

const auto quiet = [](const std::string&) {};

// Every way to count gradients, in many small buckets, and with gradients outside of them.
std::vector<DdpOptions> ways() {
  return {{.bucket_cap_mb = 1e-4},
          {.bucket_cap_mb = 1e-4, .find_unused_parameters = true, .warn = quiet},
          {.bucket_cap_mb = 1e-4, .static_graph = true},
          {.gradient_as_bucket_view = false}};
}

// Gradients of three steps, the second accumulated over two forwards of which one is not synchronised.
std::vector<std::vector<Tensor>> train(Communicator& comm, DdpOptions options, std::shared_ptr<CommHook> hook) {
  Net net = seeded();
  options.comm_hook = std::move(hook);
  Ddp ddp(comm, nn::parameters(net), {}, options);
  std::vector<std::vector<Tensor>> out;
  for (int step = 0; step < 3; ++step) {
    nn::zero_grad(net);
    const auto forward = [&](int64_t at) { return ddp.forward([&] { return loss_of(net, at + 4 * comm.rank(), 4); }); };
    if (step == 1) {
      const auto guard = ddp.no_sync();
      forward(500).backward();
    }
    forward(100 * step).backward();
    out.push_back(gradients(net));
    CHECK(same_on_all(comm, out.back()));
  }
  return out;
}

double relative_difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double largest = 0;
  for (const Tensor& t : b) largest = std::max(largest, abs(t).max().item<double>());
  return max_difference(a, b) / largest;
}

// Averages as they are, and writes down what it is asked for.
class Recorder : public CommHook {
 public:
  std::string_view name() const override { return "recorder"; }
  void prepare(Communicator&, const std::vector<GradBucket>& all) override { buckets = static_cast<int>(all.size()); }
  Exchange start(Communicator& ranks, const GradBucket& b) override {
    seen.push_back(b.index);
    if (b.is_last) lasts.push_back(b.index);
    int64_t elements = 0;
    for (size_t i = 0; i < b.gradients.size(); ++i) {
      elements += b.gradients[i].numel();
      fits = fits && b.gradients[i].storage() == b.buffer.storage() &&
             b.gradients[i].shape() == b.parameters[i].tensor.shape();
    }
    fits = fits && elements == b.buffer.numel();
    return {ranks.all_reduce(b.buffer, ReduceOp::mean), {}};
  }
  int buckets = 0;
  bool fits = true;
  std::vector<int> seen, lasts;
};

// Three legs, each of which reduces something.
class Legs final : public CommHook {
 public:
  std::string_view name() const override { return "legs"; }
  int64_t scratch_bytes(const GradBucket&) const override { return HookScratch::bytes(1, f32); }
  Exchange start(Communicator& ranks, const GradBucket& b) override {
    HookScratch scratch = b.scratch;
    const Tensor own = scratch.take({1}, f32);
    own.fill_(b.index);
    return {ranks.all_reduce(own), [&ranks, own, buffer = b.buffer] {
              total_is_right(ranks, own);
              return Exchange{ranks.all_reduce(own), [&ranks, buffer] {
                                return Exchange{ranks.all_reduce(buffer, ReduceOp::mean), {}};
                              }};
            }};
  }
  static void total_is_right(Communicator& ranks, const Tensor& own) {
    const double index = own.item<double>() / ranks.size();
    CHECK(index == std::floor(index));
  }
};

}  // namespace

TEST_CASE("40: the allreduce hook is what happens without a hook") {
  for_each_world([](Communicator& comm) {
    for (const DdpOptions& options : ways()) {
      const auto plain = train(comm, options, nullptr), hooked = train(comm, options, allreduce_hook());
      for (size_t step = 0; step < plain.size(); ++step) CHECK(equal_all(plain[step], hooked[step]));
    }
  });
}

TEST_CASE("40: gradients in 16 bits are close to those in 32") {
  for_each_world([](Communicator& comm) {
    for (const DdpOptions& options : ways()) {
      const auto plain = train(comm, options, nullptr);
      const auto half = train(comm, options, fp16_compress_hook()), brain = train(comm, options, bf16_compress_hook());
      for (size_t step = 0; step < plain.size(); ++step) {
        CHECK(relative_difference(half[step], plain[step]) < 1e-3);
        CHECK(relative_difference(brain[step], plain[step]) < 1e-2);
        CHECK(relative_difference(brain[step], plain[step]) > 0);
        CHECK(!equal_all(half[step], brain[step]));
      }
      CHECK(equal_all(half[2], train(comm, options, fp16_compress_wrapper(allreduce_hook()))[2]));
      CHECK(equal_all(brain[2], train(comm, options, bf16_compress_wrapper(allreduce_hook()))[2]));
    }
  });
}

TEST_CASE("40: half the bytes travel; gradients of 16 bits travel as they are") {
  for_each_world([](Communicator& comm) {
    for (const DType dtype : {f64, f32, bf16, f16}) {
      Net net = seeded(dtype);
      Ddp ddp(comm, nn::parameters(net), {}, {.comm_hook = fp16_compress_hook()});
      int64_t elements = 0;
      for (const NamedTensor& p : nn::parameters(net)) elements += p.tensor.numel();
      std::vector<View> sent;
      comm.set_observer([&](const Collective& c) { sent.push_back(c.out); });
      ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4, dtype); }).backward();
      comm.set_observer(nullptr);
      REQUIRE(sent.size() == 1);
      CHECK(sent[0].dtype == (dtype == bf16 ? bf16 : f16));
      CHECK(sent[0].numel() == elements);
      CHECK(ddp.statistics().comm_hook == "fp16_compress");
    }
  });
}

TEST_CASE("40: the sum of f16 does not overflow, a rank's own gradient does") {
  for_each_world([](Communicator& comm) {
    Parameter weight(zeros({3}));
    Ddp ddp(comm, {{"weight", weight}}, {}, {.comm_hook = fp16_compress_hook()});
    ddp.forward([&] { return (weight * 60000.0).sum(); }).backward();
    CHECK(max_difference({weight.grad()}, {full({3}, 60000)}) <= 16);  // f16 knows multiples of 32 there
    weight.set_grad({});
    const double own = comm.rank() == 0 ? 70000 : 1;
    ddp.forward([&] { return (weight * own).sum(); }).backward();
    CHECK(std::isinf(weight.grad().max().item<double>()));
  });
}

TEST_CASE("40: a hook is registered once") {
  const std::string text = "register_comm_hook or register_builtin_comm_hook can only be called once.";
  for_each_world([&](Communicator& comm) {
    Net net = seeded(), other = seeded();
    Ddp late(comm, nn::parameters(net)), early(comm, nn::parameters(other), {}, {.comm_hook = allreduce_hook()});
    CHECK(late.statistics().comm_hook == "allreduce");
    CHECK(contains(error_of([&] { late.register_comm_hook(nullptr); }), "no hook given"));
    late.register_comm_hook(bf16_compress_hook());
    CHECK(late.statistics().comm_hook == "bf16_compress");
    CHECK(error_of([&] { late.register_comm_hook(bf16_compress_hook()); }) == text);
    CHECK(error_of([&] { early.register_comm_hook(bf16_compress_hook()); }) == text);
    late.forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward();
    early.forward([&] { return loss_of(other, 4 * comm.rank(), 4); }).backward();
    CHECK(!equal_all(gradients(net), gradients(other)));
    CHECK(relative_difference(gradients(net), gradients(other)) < 1e-2);
  });
}

TEST_CASE("40: a hook sees each bucket once, by number, the last as the last") {
  for_each_world([](Communicator& comm) {
    for (const DdpOptions& options : ways()) {
      const auto recorder = std::make_shared<Recorder>();
      const auto plain = train(comm, options, nullptr), hooked = train(comm, options, recorder);
      CHECK(equal_all(plain[2], hooked[2]));
      CHECK(recorder->fits);
      std::vector<int> expected, last;
      for (const int buckets : {options.find_unused_parameters ? recorder->buckets : 1, recorder->buckets,
                                recorder->buckets}) {  // one bucket until they are rebuilt
        for (int i = 0; i < buckets; ++i) expected.push_back(i);
        last.push_back(buckets - 1);
      }
      CHECK(recorder->seen == expected);
      CHECK(recorder->lasts == last);
      CHECK((options.bucket_cap_mb ? recorder->buckets > 2 : recorder->buckets == 1));
    }
  });
}

TEST_CASE("40: legs of an exchange come in one order on all ranks") {
  for_each_world([](Communicator& comm) {
    for (const DdpOptions& options : ways()) {
      std::string log;
      comm.set_observer([&](const Collective& c) { log += to_string(c.kind) + str(c.out.numel()) + ' '; });
      const auto hooked = train(comm, options, std::make_shared<Legs>());
      comm.set_observer(nullptr);
      const auto logs = comm.all_gather_bytes(log);
      CHECK(std::equal(logs.begin() + 1, logs.end(), logs.begin()));
      CHECK(equal_all(hooked[2], train(comm, options, nullptr)[2]));
    }
  });
}

TEST_CASE("40: an exception in backward leaves nothing behind") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), alone = seeded();
    Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 1e-4, .comm_hook = fp16_compress_hook()});
    const auto forward = [&] { return ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4); }); };
    for (int step = 0; step < 3; ++step) {
      {
        const auto raising = net.first.weight.register_hook(
            [](const Tensor&) -> std::optional<Tensor> { throw std::runtime_error("no"); });
        CHECK_THROWS_WITH_AS(forward().backward(), "no", std::runtime_error);
        net.first.weight.remove_hook(raising);
      }
      nn::zero_grad(net);
      forward().backward();
      const auto expected = mean_of_ranks(alone, comm.size(), [&](int r) { loss_of(alone, 4 * r, 4).backward(); });
      CHECK(relative_difference(gradients(net), expected) < 1e-3);
    }
  });
}

TEST_CASE("scratch memory is what the hook asked for") {
  for_each_world([](Communicator& comm) {
    struct Greedy final : Recorder {
      Exchange start(Communicator& ranks, const GradBucket& b) override {
        HookScratch scratch = b.scratch;
        static_cast<void>(scratch.take({1}, f32));
        return Recorder::start(ranks, b);
      }
    };
    Net net = seeded();
    Ddp ddp(comm, nn::parameters(net), {}, {.comm_hook = std::make_shared<Greedy>()});
    CHECK(contains(error_of([&] { ddp.forward([&] { return loss_of(net, 0, 4); }).backward(); }),
                   "takes 64 bytes of scratch memory, its scratch_bytes() asked for 0"));
  });
}
