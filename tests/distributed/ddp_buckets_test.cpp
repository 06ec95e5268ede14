// SPDX-License-Identifier: Apache-2.0
// Assignment, sizes and the one rebuild of buckets.
#include <loom/distributed/buckets.h>

#include <algorithm>
#include <numeric>

#include "ddp_models.h"

using namespace ddp_test;

namespace {

using Lists = std::vector<std::vector<int>>;

BucketAssignment assign(const std::vector<BucketEntry>& entries, const std::vector<int64_t>& limits,
                        const std::vector<int>& order = {}) {
  return assign_buckets(entries, limits, order);
}
BucketEntry floats(int64_t n) { return {4 * n, f32, {}}; }
BucketEntry doubles(int64_t n) { return {8 * n, f64, {}}; }
const std::vector<BucketEntry> mixed{floats(50), doubles(25), floats(50), doubles(25), floats(50), doubles(25)};

// Parameters that are multiplied together in any order.
struct Factors {
  std::vector<Parameter> factors;
  Factors(int count, int64_t size) {
    for (int i = 0; i < count; ++i) factors.emplace_back(full({size}, 1 + 0.125 * i));
  }
  Tensor product(const std::vector<int>& order) const {
    Tensor x = ones({factors[0].numel()});
    for (const int i : order) x = x * factors[static_cast<size_t>(i)];
    return x;
  }
  LOOM_MEMBERS(factors)
};

struct Large {
  Parameter half{zeros({8}, f16)};
  nn::Linear a{512, 512}, b{512, 512};
  LOOM_MEMBERS(half, a, b)
};

}  // namespace

TEST_CASE("1 2 3 4: golden assignments") {
  CHECK(assign({floats(100), floats(200), floats(100), floats(50)}, {400}).buckets == Lists{{0}, {1}, {2}, {3}});
  CHECK(assign(mixed, {400}).buckets == Lists{{0, 2}, {1, 3}, {4}, {5}});

  const auto growing = assign({floats(10), floats(10), floats(10), floats(10)}, {40, 80});
  CHECK(growing.buckets == Lists{{0}, {1, 2}, {3}});
  CHECK(growing.limits == std::vector<int64_t>{40, 80, 80});

  const auto both = assign(mixed, {200, 400});
  CHECK(both.buckets == Lists{{0}, {1}, {2, 4}, {3, 5}});
  CHECK(both.limits == std::vector<int64_t>{200, 200, 400, 400});
}

TEST_CASE("6: no bucket holds two dtypes or devices; sorted by first entry") {
  const Device gpu(Device::cuda, 1);
  const std::vector<BucketEntry> entries{floats(10), {40, f32, gpu}, doubles(5),
                                         floats(10), {40, f32, gpu}, doubles(5)};
  CHECK(assign(entries, {1000}).buckets == Lists{{0, 3}, {1, 4}, {2, 5}});
  CHECK(assign(entries, {41}).buckets == Lists{{0, 3}, {1, 4}, {2, 5}});
}

TEST_CASE("7: an order that is given is kept") {
  const std::vector<BucketEntry> entries(4, floats(10));
  CHECK(assign(entries, {40}, {3, 2, 1, 0}).buckets == Lists{{3}, {2}, {1}, {0}});
  CHECK(assign(entries, {40, 80}, {3, 1, 2, 0}).buckets == Lists{{3}, {1, 2}, {0}});
  CHECK_THROWS_AS(assign(entries, {40}, {0, 1}), Error);
  CHECK(assign({}, {40}).buckets.empty());
}

TEST_CASE("8: a tiny cap gives each parameter a bucket; results are the same") {
  for_each_world([](Communicator& comm) {
    std::vector<std::vector<Tensor>> found;
    for (const std::optional<double> cap :
         {std::optional<double>(1e-5), std::optional<double>(25), std::optional<double>()}) {
      Net net = seeded();
      Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = cap});
      for (int step = 0; step < 3; ++step) {
        nn::zero_grad(net);
        ddp.forward([&] { return loss_of(net, 4 * comm.rank(), 4); }).backward();
      }
      CHECK(ddp.statistics().rebuilt_bucket_sizes.size() == (cap == 1e-5 ? 6 : 1));
      found.push_back(gradients(net));
    }
    CHECK(equal_all(found[0], found[1]));
    CHECK(equal_all(found[0], found[2]));
  });
}

TEST_CASE("9: one bucket per dtype at first, several from the second iteration on, rebuilt once") {
  for_each_world([](Communicator& comm) {
    Large net = seeded<Large>();
    Ddp ddp(comm, nn::parameters(net));
    const DdpStatistics& s = ddp.statistics();
    const int64_t matrix = 512 * 512 * 4, vector = 512 * 4;
    CHECK(s.bucket_sizes == std::vector<int64_t>{2 * (matrix + vector), 16});
    CHECK(s.parameter_bytes == 2 * (matrix + vector) + 16);
    Lists rebuilt;
    for (int step = 0; step < 4; ++step) {
      nn::zero_grad(net);
      CHECK(s.has_rebuilt == (step > 1));
      ddp.forward([&] { return mean(net.b(net.a(ones({2, 512})))) + mean(net.half).to(f32); }).backward();
      CHECK(s.launches.size() == (step == 0 ? 2 : 3));
      if (step == 1) rebuilt = s.buckets;
    }
    CHECK(s.buckets == rebuilt);
    CHECK(s.rebuilt_bucket_sizes.size() == 3);
    CHECK(std::accumulate(s.rebuilt_bucket_sizes.begin(), s.rebuilt_bucket_sizes.end(), int64_t{0}) ==
          s.parameter_bytes);
    CHECK(s.iterations == 4);
  });
}

TEST_CASE("10: buckets are rebuilt in the order of readiness, rank 0's on all ranks") {
  for_each_world([](Communicator& comm) {
    Factors net(5, 16);
    Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 16.0 * 4 / (1 << 20)});
    std::vector<int> used{2, 0, 4, 1, 3};
    std::rotate(used.begin(), used.begin() + comm.rank(), used.end());  // another order on each rank
    for (int step = 0; step < 3; ++step) {
      nn::zero_grad(net);
      ddp.forward([&] { return net.product(used).sum(); }).backward();
      const std::vector<int> ready(used.rbegin(), used.rend());
      CHECK(ddp.statistics().ready_order == ready);
      CHECK(same_on_all(comm, gradients(net)));
    }
    CHECK(ddp.statistics().buckets == Lists{{3}, {1}, {4}, {0}, {2}});
  });
}

TEST_CASE("45: the step after the rebuild is what it would be without") {
  for_each_world([](Communicator& comm) {
    Net net = seeded(), alone = seeded();
    Ddp ddp(comm, nn::parameters(net), {}, {.bucket_cap_mb = 1e-4});
    for (int step = 0; step < 3; ++step) {
      const auto expected =
          mean_of_ranks(alone, comm.size(), [&](int r) { loss_of(alone, 100 * step + 4 * r, 4).backward(); });
      nn::zero_grad(net);
      ddp.forward([&] { return loss_of(net, 100 * step + 4 * comm.rank(), 4); }).backward();
      CHECK(ddp.statistics().has_rebuilt == (step > 0));
      CHECK(equal_all(gradients(net), expected));
      const NoGrad off;
      const auto mine = nn::parameters(net), others = nn::parameters(alone);
      for (size_t i = 0; i < mine.size(); ++i) {
        mine[i].tensor.sub_(mine[i].tensor.grad(), 0.1);
        others[i].tensor.sub_(expected[i], 0.1);
      }
      CHECK(equal_all(values(mine), values(others)));
    }
  });
}
