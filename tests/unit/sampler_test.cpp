// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include <loom/data/sampler.h>
#include <loom/tensor/context.h>

using namespace loom;
using namespace loom::data;
using Indices = std::vector<int64_t>;

namespace {

Indices sorted(Indices v) {
  std::sort(v.begin(), v.end());
  return v;
}

Indices iota(int64_t n) {
  Indices out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

// torch.utils.data.DistributedSampler.__iter__, as it is written there.
Indices torch_distributed(Indices indices, int64_t replicas, int64_t rank, bool drop_last) {
  const auto n = static_cast<int64_t>(indices.size());
  const auto ceil_of = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const bool tail = drop_last && n % replicas != 0;
  const int64_t num_samples = tail ? ceil_of(n - replicas, replicas) : ceil_of(n, replicas);
  const int64_t total = num_samples * replicas;
  if (!drop_last) {
    const int64_t padding = total - n;
    Indices repeated;
    for (int64_t i = 0; i < ceil_of(padding, n); ++i) repeated.insert(repeated.end(), indices.begin(), indices.end());
    indices.insert(indices.end(), repeated.begin(), repeated.begin() + padding);
  } else {
    indices.resize(static_cast<size_t>(std::max<int64_t>(0, total)));
  }
  Indices out;
  for (int64_t i = rank; i < total; i += replicas) out.push_back(indices[static_cast<size_t>(i)]);
  return out;
}

}  // namespace

TEST_CASE("samplers: orders of an epoch") {
  CHECK(SequentialSampler(4).indices(7) == Indices{0, 1, 2, 3});
  CHECK(SequentialSampler(0).indices(0).empty());
  const RandomSampler random(100, {.seed = 3});
  CHECK(random.size() == 100);
  CHECK(sorted(random.indices(0)) == iota(100));
  CHECK(random.indices(0) == RandomSampler(100, {.seed = 3}).indices(0));
  CHECK(random.indices(0) != random.indices(1));
  CHECK(random.indices(1) == RandomSampler(100, {.seed = 4}).indices(0));  // epoch e is drawn from seed + e
  CHECK(random.indices(0, 90).size() == 10);
}

TEST_CASE("samplers: the golden permutation") {  // the same bits in every build, on every machine
  CHECK(permutation(10, 0) == Indices{4, 3, 0, 1, 6, 8, 7, 9, 2, 5});
  CHECK(permutation(10, 42) == Indices{1, 8, 7, 4, 6, 5, 0, 2, 3, 9});
  CHECK(permutation(0, 1).empty());
  CHECK(permutation(1, 1) == Indices{0});
  std::map<Indices, int> seen;  // all 6 orders of 3, about equally often
  for (uint64_t seed = 0; seed < 6000; ++seed) ++seen[permutation(3, seed)];
  CHECK(seen.size() == 6);
  for (const auto& [order, count] : seen) CHECK(std::abs(count - 1000) < 150);
}

TEST_CASE("samplers: the rank's generator is neither needed nor moved on") {
  manual_seed(11);
  const RandomSampler by_default(50);
  const Generator before = context().generator;
  const auto order = by_default.indices(2);
  CHECK(context().generator == before);
  CHECK(order == RandomSampler(50, {.seed = 11}).indices(2));
}

TEST_CASE("random sampler: with replacement, more and fewer samples") {
  const RandomSampler with(5, {.replacement = true, .num_samples = 1000, .seed = 1});
  const auto drawn = with.indices(0);
  CHECK(drawn.size() == 1000);
  for (int64_t i = 0; i < 5; ++i) CHECK(std::abs(std::count(drawn.begin(), drawn.end(), i) - 200) < 60);
  const auto more = RandomSampler(4, {.num_samples = 10, .seed = 1}).indices(0);
  CHECK(more.size() == 10);
  CHECK(sorted({more.begin(), more.begin() + 4}) == iota(4));
  CHECK(sorted({more.begin() + 4, more.begin() + 8}) == iota(4));
  const auto fewer = RandomSampler(10, {.num_samples = 3, .seed = 1}).indices(0);
  CHECK(std::set<int64_t>(fewer.begin(), fewer.end()).size() == 3);
  CHECK_THROWS_AS(RandomSampler(0, {.num_samples = 1}), Error);
}

TEST_CASE("weighted sampler") {
  const auto drawn = WeightedRandomSampler({0, 1, 3, 0}, 4000, true, 5).indices(0);
  CHECK(std::count(drawn.begin(), drawn.end(), 0) == 0);
  CHECK(std::count(drawn.begin(), drawn.end(), 3) == 0);
  CHECK(std::abs(std::count(drawn.begin(), drawn.end(), 2) - 3000) < 150);
  CHECK(sorted(WeightedRandomSampler({1, 0, 2, 5}, 3, false, 5).indices(0)) == Indices{0, 2, 3});
  int64_t first = 0;  // without replacement, the first is drawn as with it
  const WeightedRandomSampler one({1, 3}, 1, false, 5);
  for (int64_t epoch = 0; epoch < 4000; ++epoch) first += one.indices(epoch)[0];
  CHECK(std::abs(first - 3000) < 150);
  CHECK_THROWS_AS(WeightedRandomSampler({1, -1}, 1), Error);
  CHECK_THROWS_AS(WeightedRandomSampler({0, 0}, 1), Error);
  CHECK_THROWS_AS(WeightedRandomSampler({1, 0}, 2, false), Error);
  CHECK_THROWS_AS(WeightedRandomSampler({1}, 0), Error);
}

TEST_CASE("distributed sampler: PyTorch's index lists") {
  const auto of = [](int64_t n, int64_t replicas, int64_t rank, bool drop_last = false) {
    return DistributedSampler(n, {.num_replicas = replicas, .rank = rank, .shuffle = false, .drop_last = drop_last})
        .indices(0);
  };
  CHECK(of(10, 4, 0) == Indices{0, 4, 8});
  CHECK(of(10, 4, 1) == Indices{1, 5, 9});
  CHECK(of(10, 4, 2) == Indices{2, 6, 0});
  CHECK(of(10, 4, 3) == Indices{3, 7, 1});
  CHECK(of(10, 4, 3, true) == Indices{3, 7});
  CHECK(of(2, 5, 4) == Indices{0});  // repeated more than once around
  for (int64_t n = 1; n < 14; ++n)
    for (int64_t replicas = 1; replicas < 7; ++replicas)
      for (int64_t rank = 0; rank < replicas; ++rank)
        for (const bool drop_last : {false, true}) {
          CAPTURE(n);
          CAPTURE(replicas);
          CAPTURE(rank);
          CAPTURE(drop_last);
          CHECK(of(n, replicas, rank, drop_last) == torch_distributed(iota(n), replicas, rank, drop_last));
          const DistributedSampler shuffled(
              n, {.num_replicas = replicas, .rank = rank, .seed = 9, .drop_last = drop_last});
          CHECK(shuffled.indices(3) == torch_distributed(permutation(n, 12), replicas, rank, drop_last));
          CHECK(shuffled.size() == static_cast<int64_t>(shuffled.indices(3).size()));
        }
}

TEST_CASE("distributed sampler: the ranks together see the single process's order") {
  const auto single = RandomSampler(10, {.seed = 1}).indices(4);
  for (int64_t step = 0; step < 2; ++step)
    for (int64_t rank = 0; rank < 4; ++rank) {
      const auto mine = DistributedSampler(10, {.num_replicas = 4, .rank = rank, .seed = 1}).indices(4);
      CHECK(mine[static_cast<size_t>(step)] == single[static_cast<size_t>(step * 4 + rank)]);
    }
}

TEST_CASE("distributed sampler: exact repeats nothing and loses nothing") {
  Indices all;
  std::vector<size_t> shares;
  for (int64_t rank = 0; rank < 4; ++rank) {
    const DistributedSampler mine(10, {.num_replicas = 4, .rank = rank, .shuffle = false, .exact = true});
    const auto indices = mine.indices(0);
    CHECK(mine.size() == static_cast<int64_t>(indices.size()));
    shares.push_back(indices.size());
    all.insert(all.end(), indices.begin(), indices.end());
  }
  CHECK(shares == std::vector<size_t>{3, 3, 2, 2});
  CHECK(sorted(all) == iota(10));
}

TEST_CASE("distributed sampler: goes on with another number of ranks, without repeats") {
  Indices seen;
  const auto collect = [&](int64_t replicas, int64_t from, int64_t count) {
    for (int64_t rank = 0; rank < replicas; ++rank) {
      const auto mine = DistributedSampler(24, {.num_replicas = replicas, .rank = rank, .seed = 2}).indices(5, from);
      seen.insert(seen.end(), mine.begin(), mine.begin() + count);
    }
  };
  collect(4, 0, 3);   // 12 samples on 4 ranks,
  collect(2, 12, 3);  // 6 on 2,
  collect(3, 18, 2);  // the last 6 on 3
  CHECK(sorted(seen) == iota(24));
  // At equal ranks, resuming is skipping: the padding is the same too.
  const DistributedSampler same(10, {.num_replicas = 4, .rank = 3, .seed = 2});
  const auto whole = same.indices(1);
  CHECK(same.indices(1, 4) == Indices(whole.begin() + 1, whole.end()));
  CHECK(same.indices(1, 12).empty());
}

TEST_CASE("distributed sampler: wraps any sampler, refuses bad ranks") {
  const auto weighted = WeightedRandomSampler({1, 1, 1, 1, 1, 1}, 6, false, 8);
  const DistributedSampler half(weighted, {.num_replicas = 2, .rank = 1});
  const auto whole = weighted.indices(0);
  CHECK(half.indices(0) == Indices{whole[1], whole[3], whole[5]});
  CHECK_THROWS_WITH_AS(DistributedSampler(10, {.num_replicas = 4, .rank = 4}),
                       "DistributedSampler: rank 4 is out of range for 4 replicas, expects 0 to 3", Error);
  CHECK_THROWS_AS(DistributedSampler(10, {.num_replicas = 4, .rank = -1}), Error);
  CHECK_THROWS_AS(DistributedSampler(10, {.num_replicas = 0}), Error);
  CHECK_THROWS_AS(DistributedSampler(10, {.num_replicas = 2, .drop_last = true, .exact = true}), Error);
  CHECK_THROWS_AS(DistributedSampler(half, {.num_replicas = 2, .rank = 1}), Error);
}

TEST_CASE("batch sampler") {
  using Batches = std::vector<Indices>;
  CHECK(BatchSampler(SequentialSampler(5), 2).batches(0) == Batches{{0, 1}, {2, 3}, {4}});
  CHECK(BatchSampler(SequentialSampler(5), 2, true).batches(0) == Batches{{0, 1}, {2, 3}});
  CHECK(BatchSampler(SequentialSampler(5), 2).total() == 3);
  CHECK(BatchSampler(DistributedSampler(5, {.num_replicas = 2, .shuffle = false}), 2).batches(0) ==
        Batches{{0, 2}, {4}});
  CHECK_THROWS_AS(BatchSampler(SequentialSampler(5), 0), Error);
}
