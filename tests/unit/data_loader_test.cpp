// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include <loom/data/data_loader.h>

using namespace loom;
using namespace loom::data;
using Indices = std::vector<int64_t>;
using Batches = std::vector<Indices>;

namespace {

// Sample i: {i, a random draw}; slow in turns, so that workers overtake each other.
struct Numbers {
  int64_t count;
  bool jitter = false;
  int64_t size() const { return count; }
  std::pair<int64_t, Tensor> get(int64_t i) const {
    if (jitter) std::this_thread::sleep_for(std::chrono::microseconds(i % 3 * 300));
    return {i, raw::random(Random::uniform, {2}, 0, 1, {f32, Device::cpu})};
  }
};

struct Failing {
  int64_t at;
  int64_t size() const { return 12; }
  int64_t get(int64_t i) const {
    check(i != at, "Failing: sample ", i, " is broken");
    return i;
  }
};

struct Indexed {
  int64_t count;
  int64_t size() const { return count; }
  int64_t get(int64_t i) const { return i; }
};

Indices values(const Tensor& x) { return x.to_vector<int64_t>(); }

template <class Loader>
Batches rest_of(Loader& loader) {
  Batches out;
  for (auto& batch : loader) out.push_back(values(batch));
  return out;
}

}  // namespace

TEST_CASE("data loader: sizes, order, drop_last") {
  DataLoader loader(Indexed{5}, {.batch_size = 2});
  CHECK(loader.size() == 3);
  CHECK(rest_of(loader) == Batches{{0, 1}, {2, 3}, {4}});
  CHECK(rest_of(loader) == Batches{{0, 1}, {2, 3}, {4}});
  DataLoader dropping(Indexed{5}, {.batch_size = 2, .drop_last = true});
  CHECK(dropping.size() == 2);
  CHECK(rest_of(dropping) == Batches{{0, 1}, {2, 3}});
  DataLoader none(Indexed{0}, {.batch_size = 2, .shuffle = true, .num_workers = 2});
  CHECK(none.size() == 0);
  CHECK(rest_of(none).empty());
}

TEST_CASE("data loader: the same batches and random draws whatever the workers") {
  std::vector<double> draws[3];
  std::vector<Batches> orders;
  for (const int workers : {0, 1, 3}) {
    DataLoader loader(Numbers{20, true}, {.batch_size = 3, .shuffle = true, .num_workers = workers, .seed = 5});
    Batches order;
    for (int epoch = 0; epoch < 2; ++epoch)
      for (auto [x, noise] : loader) {
        order.push_back(values(x));
        CHECK(noise.shape() == Dims{x.numel(), 2});
        for (const double v : noise.template to_vector<double>()) draws[orders.size()].push_back(v);
      }
    orders.push_back(order);
  }
  CHECK(orders[0] == orders[1]);
  CHECK(orders[0] == orders[2]);
  CHECK(draws[0] == draws[1]);
  CHECK(draws[0] == draws[2]);
  std::sort(draws[0].begin(), draws[0].end());
  CHECK(std::adjacent_find(draws[0].begin(), draws[0].end()) == draws[0].end());  // each sample has draws of its own
  CHECK(Batches(orders[0].begin(), orders[0].begin() + 7) != Batches(orders[0].begin() + 7, orders[0].end()));
}

TEST_CASE("data loader: leaves the caller's generator and gradient mode alone") {
  manual_seed(3);
  const Generator before = context().generator;
  DataLoader loader(Numbers{4}, {.batch_size = 2, .shuffle = true});
  for (auto [x, noise] : loader) CHECK(context().grad_mode);
  CHECK(context().generator == before);
  CHECK(loader.state().seed == 3);
}

TEST_CASE("data loader: an exception in get reaches the loop, in its turn; the loader stays usable") {
  for (const int workers : {0, 1, 3}) {
    CAPTURE(workers);
    DataLoader loader(Failing{7}, {.batch_size = 2, .num_workers = workers});
    for (int again = 0; again < 2; ++again) {
      Batches seen;
      const auto loop = [&] {
        for (auto& batch : loader) seen.push_back(values(batch));
      };
      CHECK_THROWS_WITH_AS(loop(), "Failing: sample 7 is broken", Error);
      CHECK(seen == Batches{{0, 1}, {2, 3}, {4, 5}});
    }
    CHECK(loader.state().epoch == 1);
    CHECK(loader.state().position == 6);
  }
}

TEST_CASE("data loader: a loop may be left early") {
  DataLoader loader(Numbers{1000, true}, {.batch_size = 2, .shuffle = true, .num_workers = 3, .seed = 1});
  Indices first;
  for (auto [x, noise] : loader) {
    first = values(x);
    break;
  }
  CHECK(loader.state() == LoaderState{0, 2, 1});
  for (auto [x, noise] : loader) {
    CHECK(values(x) != first);  // the next epoch
    break;
  }
  loader.set_epoch(0);
  for (auto [x, noise] : loader) {
    CHECK(values(x) == first);
    break;
  }
}

TEST_CASE("data loader: a loop within a loop needs a loader of its own") {
  DataLoader loader(Indexed{4}, {.batch_size = 2});
  int inner = 0;
  const auto nested = [&](auto& other) {
    for (const auto& batch : loader) {
      static_cast<void>(batch);
      for (const auto& more : other) inner += more.defined() ? 1 : 0;
    }
  };
  auto copy = loader;
  nested(copy);
  CHECK(inner == 4);
  CHECK_THROWS_WITH_AS(nested(loader),
                       "DataLoader: another loop over this loader began within this one, and its place in the epoch is "
                       "the loader's; copy the loader for the inner loop",
                       Error);
}

TEST_CASE("data loader: resumes within an epoch, bit for bit") {
  for (const int workers : {0, 2}) {
    const DataLoaderOptions options{.batch_size = 3, .shuffle = true, .num_workers = workers, .seed = 8};
    DataLoader whole(Numbers{20}, options);
    std::vector<std::vector<float>> noises;
    Batches order;
    LoaderState saved;
    for (int epoch = 0; epoch < 3; ++epoch)
      for (auto [x, noise] : whole) {
        order.push_back(values(x));
        noises.push_back(noise.template to_vector<float>());
        if (order.size() == 10) saved = whole.state();
      }
    CHECK(saved == LoaderState{1, 9, 8});  // consumed, not prefetched
    DataLoader resumed(Numbers{20}, {.batch_size = 3, .shuffle = true, .num_workers = 1, .seed = 99});
    resumed.load_state(saved);
    resumed.set_epoch(1);  // a loop that sets its epoch keeps the position
    size_t at = 10;
    for (int epoch = 1; epoch < 3; ++epoch)
      for (auto [x, noise] : resumed) {
        CHECK(values(x) == order[at]);
        CHECK(noise.template to_vector<float>() == noises[at++]);
      }
    CHECK(at == order.size());
    CHECK(resumed.state() == whole.state());
    CHECK(whole.state() == LoaderState{3, 0, 8});
  }
}

TEST_CASE("data loader: a position that its epochs do not have") {
  DataLoader loader(Numbers{10}, {.batch_size = 3, .seed = 8});
  for (const LoaderState& state : {LoaderState{0, 20, 8}, LoaderState{0, -1, 8}, LoaderState{-1, 0, 8}}) {
    CHECK_THROWS_WITH_AS(loader.load_state(state),
                         str("DataLoader: load_state: position ", state.position, " of epoch ", state.epoch,
                             ", expects one of 0 to 10 of an epoch from 0 on (10 samples, in order)")
                             .c_str(),
                         Error);
    CHECK(loader.state() == LoaderState{0, 0, 8});
  }
  loader.load_state({0, 10, 8});  // its end
  CHECK(loader.begin() == loader.end());
}

TEST_CASE("data loader: ranks share an epoch, and go on with another number of ranks") {
  const DataLoader single(Indexed{24}, {.batch_size = 3, .shuffle = true, .seed = 4});
  DataLoader one = single;
  Indices order;
  for (auto& batch : one)
    for (const int64_t i : values(batch)) order.push_back(i);
  Indices seen;
  LoaderState state;
  for (int64_t rank = 0; rank < 4; ++rank) {
    DataLoader mine = single.distributed(4, rank);
    CHECK(mine.size() == 2);
    for (auto& batch : mine) {
      for (size_t k = 0; k < 3; ++k) CHECK(values(batch)[k] == order[k * 4 + static_cast<size_t>(rank)]);
      for (const int64_t i : values(batch)) seen.push_back(i);
      state = mine.state();
      break;
    }
  }
  CHECK(state == LoaderState{0, 12, 4});
  for (int64_t rank = 0; rank < 2; ++rank) {
    DataLoader mine = single.distributed(2, rank, 77);
    mine.load_state(state);
    for (auto& batch : mine)
      for (const int64_t i : values(batch)) seen.push_back(i);
  }
  std::sort(seen.begin(), seen.end());
  Indices everything(24);
  std::iota(everything.begin(), everything.end(), 0);
  CHECK(seen == everything);
}

TEST_CASE("data loader: a sample's draws do not depend on the number of ranks") {
  const DataLoader single(Numbers{8}, {.batch_size = 4, .shuffle = true, .seed = 4});
  std::vector<std::vector<float>> alone(8), shared(8);
  const auto record = [](DataLoader<Numbers> loader, auto& into) {
    for (auto [x, noise] : loader)
      for (int64_t k = 0; k < x.numel(); ++k)
        into[static_cast<size_t>(values(x)[static_cast<size_t>(k)])] =
            raw::select(noise, 0, k).template to_vector<float>();
  };
  record(single, alone);
  record(single.distributed(2, 0), shared);
  record(single.distributed(2, 1), shared);
  CHECK(alone == shared);
}

TEST_CASE("data loader: exact evaluation gives all ranks as many batches") {
  const DataLoader single(Numbers{5}, {.batch_size = 2});
  Batches all[2];
  for (int64_t rank = 0; rank < 2; ++rank) {
    DataLoader mine = single.distributed(2, rank, {}, true);
    CHECK(mine.size() == 2);
    for (auto [x, noise] : mine) {
      all[rank].push_back(values(x));
      CHECK(noise.shape() == Dims{x.numel(), 2});
    }
  }
  CHECK(all[0] == Batches{{0, 2}, {4}});
  CHECK(all[1] == Batches{{1, 3}, {}});
}

TEST_CASE("data loader: samplers of the user's") {
  struct Odd : Sampler {
    int64_t total() const override { return 4; }
    Indices order(int64_t epoch) const override { return {1, 3, 5, 7 + 2 * epoch}; }
  };
  DataLoader odd(Indexed{10}, {.batch_size = 3, .sampler = Odd()});
  CHECK(odd.size() == 2);
  CHECK(rest_of(odd) == Batches{{1, 3, 5}, {7}});
  DataLoader half = odd.distributed(2, 1);
  CHECK(rest_of(half) == Batches{{3, 9}});
  CHECK_THROWS_WITH_AS(rest_of(half), "DataLoader: the sampler gave index 11 for a data set of 10 samples", Error);

  struct Buckets : BatchSampler {
    int64_t total() const override { return 3; }
    Batches batches(int64_t) const override { return {{0}, {1, 2}, {3, 4, 5}}; }
  };
  DataLoader buckets(Indexed{6}, {.batch_sampler = Buckets()});
  CHECK(buckets.size() == 3);
  CHECK(rest_of(buckets) == Batches{{0}, {1, 2}, {3, 4, 5}});
  DataLoader second = buckets.distributed(2, 1);
  CHECK(second.size() == 2);
  CHECK(rest_of(second) == Batches{{1, 2}, {0}});  // repeats from the start, as samples do
  DataLoader exact = buckets.distributed(2, 1, {}, true);
  CHECK(rest_of(exact) == Batches{{1, 2}, {}});
  buckets.load_state({0, 2, 0});
  CHECK(rest_of(buckets) == Batches{{3, 4, 5}});

  const DistributedSampler given(6, {.num_replicas = 3, .rank = 2, .shuffle = false});
  DataLoader as_given(Indexed{6}, {.batch_size = 1, .sampler = given});
  CHECK(rest_of(as_given) == Batches{{2}, {5}});
  DataLoader unchanged = as_given.distributed(2, 0);
  CHECK(rest_of(unchanged) == Batches{{2}, {5}});
}

TEST_CASE("data sets: tensors, subsets, concatenations, splits") {
  const Tensor x = raw::reshape(raw::cast(arange(12), f32), {6, 2}), y = arange(6);
  DataLoader loader(TensorDataset(x, y), {.batch_size = 4});
  for (auto [a, b] : loader) {
    CHECK(a.to_vector<float>()[2] == static_cast<float>(2 * values(b)[1]));
    CHECK(a.dim() == 2);
  }
  const auto [row, label] = TensorDataset(x, y).get(2);
  CHECK(row.to_vector<float>() == std::vector<float>{4, 5});
  CHECK(label.item<int>() == 2);
  CHECK_THROWS_AS(TensorDataset(x, y).get(6), Error);
  CHECK_THROWS_AS(TensorDataset(x, arange(5)), Error);

  const Subset some{TensorDataset(y), {4, 1}};
  CHECK(std::get<0>(some.get(0)).item<int>() == 4);
  DataLoader of_some(some, {.batch_size = 2});
  for (auto [b] : of_some) CHECK(values(b) == Indices{4, 1});
  CHECK_THROWS_AS(Subset(TensorDataset(y), {6}), Error);
  CHECK_THROWS_AS(some.get(2), Error);

  const ConcatDataset both(std::vector{Indexed{2}, Indexed{0}, Indexed{3}});
  CHECK(both.size() == 5);
  CHECK(both.get(1) == 1);
  CHECK(both.get(2) == 0);
  CHECK(both.get(4) == 2);
  CHECK_THROWS_AS(both.get(5), Error);

  const auto parts = random_split(Indexed{10}, {0.75, 0.25}, 1);
  CHECK(parts[0].size() == 8);  // 7.5 and 2.5 rounded down; the rest goes to the first
  CHECK(parts[1].size() == 2);
  Indices all = parts[0].indices();
  all.insert(all.end(), parts[1].indices().begin(), parts[1].indices().end());
  CHECK(all == permutation(10, 1));
  CHECK(random_split(Indexed{10}, {7, 3})[1].size() == 3);
  CHECK_THROWS_AS(random_split(Indexed{10}, {7, 4}), Error);
}

TEST_CASE("data loader: options that exclude each other") {
  CHECK_THROWS_AS(DataLoader(Indexed{4}, {.batch_size = 0}), Error);
  CHECK_THROWS_AS(DataLoader(Indexed{4}, {.num_workers = -1}), Error);
  CHECK_THROWS_AS(DataLoader(Indexed{4}, {.prefetch_factor = 0}), Error);
  CHECK_THROWS_AS(DataLoader(Indexed{4}, {.shuffle = true, .sampler = SequentialSampler(4)}), Error);
  CHECK_THROWS_AS(DataLoader(Indexed{4}, {.batch_size = 2, .batch_sampler = BatchSampler(SequentialSampler(4), 2)}),
                  Error);
  CHECK_THROWS_AS(DataLoader(Indexed{4}).distributed(2, 2), Error);
}

TEST_CASE("prefetch: bounded, each item once, in order") {
  std::atomic<int64_t> made{0};
  Prefetch<int64_t> items(50, 3, 4, [&](int64_t i) {
    ++made;
    return i;
  });
  for (int64_t i = 0; i < 50; ++i) {
    CHECK(made <= i + 4);
    CHECK(items.take() == i);
  }
  CHECK(items.exhausted());
  CHECK(made == 50);
}
