// SPDX-License-Identifier: Apache-2.0
// Reductions run while backward computes, in one order on all ranks. Compute sleeps: real work would compete with the
// communicator for cores.
#include <algorithm>
#include <numeric>
#include <random>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

struct Layers {
  std::vector<Parameter> weights;
  explicit Layers(int count) {
    for (int i = 0; i < count; ++i) weights.emplace_back(full({64}, 1 + 0.01 * i));
  }
  // Uses them in the given order; backward sleeps before each gradient.
  Tensor run(const std::vector<int>& order, const std::function<void(int)>& sleep) const {
    Tensor x = ones({64});
    for (const int i : order) {
      x = x * weights[static_cast<size_t>(i)];
      x.register_hook([i, sleep](const Tensor&) -> std::optional<Tensor> {
        sleep(i);
        return {};
      });
    }
    return x.sum();
  }
  LOOM_MEMBERS(weights)
};

constexpr double one_each = 64.0 * 4 / (1 << 20);

double ms(DdpStatistics::Time from, DdpStatistics::Time to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

std::vector<int> in_order(int count) {
  std::vector<int> out(static_cast<size_t>(count));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

}  // namespace

TEST_CASE("42 44: reductions hide behind backward") {
  if (under_mpirun()) return;  // delays are the threads' communicator's
  for (const int ranks : {1, 2, 4})
    run_threads(
        ranks,
        [](Communicator& comm) {
          Layers net(8);
          Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = one_each});
          const auto step = [&] {
            nn::zero_grad(net);
            ddp.forward([&] { return net.run(in_order(8), [](int) { sleep_ms(40); }); }).backward();
          };
          step();
          step();
          const DdpStatistics& s = ddp.statistics();
          CHECK(s.launches.size() == 8);
          for (size_t i = 0; i < s.launches.size(); ++i) CHECK(s.launches[i].bucket == static_cast<int>(i));
          CHECK(s.launches[0].launched < s.last_ready);
          for (size_t i = 0; i + 1 < s.launches.size(); ++i) CHECK(s.launches[i].launched < s.launches[i + 1].launched);
          // Each was launched before the next layer's 40 ms; in series the eight reductions would add 160 ms.
          for (size_t i = 0; i + 1 < s.launches.size(); ++i)
            CHECK(ms(s.launches[i].launched, s.backward_end) > 30.0 * static_cast<double>(7 - i));
          const double exposed = ms(s.backward_end, s.launches.back().finished);
          CHECK(exposed < 100);
          CHECK(ms(s.backward_start, s.backward_end) >= 7 * 40);
        },
        ThreadsOptions{.delay = std::chrono::milliseconds(20)});
}

TEST_CASE("44: collectives complete while the caller sleeps, and nobody waits for them") {
  for_each_world([](Communicator& comm) {
    std::vector<Tensor> sums;
    std::vector<Work> works;
    for (int i = 0; i < 6; ++i) {
      sums.push_back(full({300000}, comm.rank() + i));
      works.push_back(comm.all_reduce(sums.back(), ReduceOp::sum));
    }
    const auto all_done = [&] { return std::ranges::all_of(works, [](const Work& w) { return w.done(); }); };
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!all_done() && std::chrono::steady_clock::now() < deadline) sleep_ms(5);
    CHECK(all_done());
    for (const Work& w : works) w.wait();  // before anything else where that failed
    const int n = comm.size();
    for (int i = 0; i < 6; ++i) {
      const int sum = n * (n - 1) / 2 + n * i;
      CHECK(equal(sums[static_cast<size_t>(i)], full({300000}, sum)));
    }
  });
}

TEST_CASE("42 44: reductions are issued in backward, in order, while later gradients are computed") {
  for_each_world([](Communicator& comm) {
    Layers net(8);
    Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = one_each});
    for (int step = 0; step < 2; ++step) {
      nn::zero_grad(net);
      ddp.forward([&] { return net.run(in_order(8), [](int) { sleep_ms(2); }); }).backward();
    }
    const DdpStatistics& s = ddp.statistics();
    REQUIRE(s.launches.size() == 8);
    for (size_t i = 0; i < s.launches.size(); ++i) CHECK(s.launches[i].bucket == static_cast<int>(i));
    for (size_t i = 0; i + 1 < s.launches.size(); ++i) {
      CHECK(ms(s.launches[i].launched, s.launches[i + 1].launched) >= 2);  // the sleep lies between
      CHECK(s.launches[i].launched < s.last_ready);
    }
    CHECK(same_on_all(comm, gradients(net)));
  });
}

TEST_CASE("42: buckets are launched in the order of their numbers, also when ready out of order") {
  for_each_world([](Communicator& comm) {
    Layers net(6);
    Ddp ddp(comm, nn::parameters(net), {},
            {.bucket_cap_mb = one_each, .find_unused_parameters = true, .warn = [](auto&) {}});
    std::vector<int> order = in_order(6);
    std::rotate(order.begin(), order.begin() + 1 + comm.rank(), order.end());
    ddp.forward([&] { return net.run(order, [](int) {}); }).backward();
    const DdpStatistics& s = ddp.statistics();
    CHECK(s.buckets == std::vector<std::vector<int>>{{5}, {4}, {3}, {2}, {1}, {0}});
    CHECK(s.ready_order == std::vector<int>(order.rbegin(), order.rend()));
    for (size_t i = 0; i < 6; ++i) CHECK(s.launches[i].bucket == static_cast<int>(i));
  });
}

TEST_CASE("43: the order of issue is the same on all ranks under random delays") {
  for_each_world([](Communicator& comm) {
    for (unsigned seed = 0; seed < 100; ++seed) {
      std::mt19937 random(1000 * seed + static_cast<unsigned>(comm.rank()));
      Layers net(5);
      const bool find_unused = seed % 2 == 1;
      std::string issued;
      comm.set_observer([&](const Collective& c) { issued += to_string(c) + '\n'; });
      {
        Ddp ddp(
            comm, nn::parameters(net), {},
            {.bucket_cap_mb = one_each * (1 + seed % 3), .find_unused_parameters = find_unused, .warn = [](auto&) {}});
        std::vector<int> order = in_order(5);
        for (int step = 0; step < 3; ++step) {
          std::shuffle(order.begin(), order.end(), random);
          std::vector<int> used = order;
          if (find_unused) used.resize(1 + random() % 5);
          ddp.forward([&] {
               return net.run(used,
                              [&](int) { std::this_thread::sleep_for(std::chrono::microseconds(random() % 200)); });
             })
              .backward();
        }
        CHECK(ddp.statistics().iterations == 3);
      }
      comm.set_observer({});
      for (const std::string& other : comm.all_gather_bytes(issued)) CHECK(other == issued);
      CHECK(same_on_all(comm, gradients(net)));
    }
  });
}
