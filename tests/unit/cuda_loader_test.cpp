// SPDX-License-Identifier: Apache-2.0
// Batches that are copied to a GPU ahead of their use: the same ones, in the same order, whatever happens.
#include <doctest/doctest.h>

#include <atomic>
#include <memory>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/autograd/ops.h>
#include <loom/data/data_loader.h>
#include <loom/tensor/pinned.h>

using namespace loom;
using namespace loom::data;

namespace {

bool skipped() {
  if (device_count(Device::cuda) > 0) return false;
  MESSAGE("skipped: " << cuda_description());
  return true;
}

struct Sample {
  Tensor x;
  int64_t number;
  std::string name;
};

// A tensor of its own random numbers, a number and a text.
struct Samples {
  int64_t count;
  int64_t broken = -1;
  std::shared_ptr<std::atomic<int>> made = std::make_shared<std::atomic<int>>(0);
  int64_t size() const { return count; }
  Sample get(int64_t i) const {
    check(i != broken, "sample ", i, " is broken");
    ++*made;
    return {raw::random(Random::uniform, {50}, 0, 1, {f32, Device::cpu}), i, str("sample ", i)};
  }
};

struct Seen {
  std::vector<std::vector<float>> x;
  std::vector<std::vector<int64_t>> number;
  std::vector<std::vector<std::string>> name;
  bool operator==(const Seen&) const = default;
};

// What a loop computes with its batches; without waiting for the device before its end.
template <class Loader>
Seen seen_by(Loader& loader, int most = 1000) {
  std::vector<std::tuple<Tensor, Tensor, std::vector<std::string>>> results;
  for (auto& [x, number, name] : loader) {
    results.emplace_back(x * 2.0 + 1.0, number + int64_t{1}, name);
    if (--most == 0) break;
  }
  Seen out;
  for (const auto& [x, number, name] : results) {
    out.x.push_back(x.template to_vector<float>());
    out.number.push_back(number.template to_vector<int64_t>());
    out.name.push_back(name);
  }
  return out;
}

DataLoaderOptions options(int workers) { return {.batch_size = 3, .shuffle = true, .num_workers = workers, .seed = 5}; }

}  // namespace

TEST_CASE("batches on a GPU are those of the host, over several epochs") {
  if (skipped()) return;
  for (const int workers : {0, 1, 3}) {
    CAPTURE(workers);
    DataLoader host(Samples{20}, options(workers));
    DataLoader gpu = host.on_device(Device::cuda);
    for (int epoch = 0; epoch < 3; ++epoch) {
      const Seen expected = seen_by(host);
      CHECK(expected.x.size() == 7);
      CHECK(seen_by(gpu) == expected);
      CHECK(gpu.state() == host.state());
    }
    for (auto& [x, number, name] : gpu) {
      CHECK(x.device() == Device(Device::cuda));
      CHECK(number.device() == Device(Device::cuda));
    }
  }
}

TEST_CASE("their memory is not used for the next ones while it is read") {
  if (skipped()) return;
  DataLoader loader = DataLoader(Samples{60}, options(2)).on_device(Device::cuda);
  DataLoader host(Samples{60}, options(0));
  Tensor sums = zeros({50}, {f32, Device::cuda}), expected = zeros({50});
  for (auto& [x, number, name] : loader) {
    for (int i = 0; i < 4; ++i) sums += sum(x, {0});
    x.zero_();  // it is the loop's
  }
  for (auto& [x, number, name] : host)
    for (int i = 0; i < 4; ++i) expected += sum(x, {0});
  CHECK(max(abs(sums.to(Device::cpu) - expected)).item<double>() < 1e-4);
}

TEST_CASE("an error comes in its turn, and the loader stays usable") {
  if (skipped()) return;
  for (const int workers : {0, 2}) {
    CAPTURE(workers);
    DataLoader loader = DataLoader(Samples{12, 7}, {.batch_size = 2, .num_workers = workers}).on_device(Device::cuda);
    for (int again = 0; again < 2; ++again) {
      int64_t batches = 0;
      const auto loop = [&] {
        for (auto& [x, number, name] : loader) batches += number[0].item<int64_t>() == 2 * batches ? 1 : 100;
      };
      CHECK_THROWS_WITH_AS(loop(), "sample 7 is broken", Error);
      CHECK(batches == 3);
    }
    CHECK(loader.state().position == 6);
  }
}

TEST_CASE("left early: what was copied ahead is not consumed") {
  if (skipped()) return;
  for (const int workers : {0, 2}) {
    CAPTURE(workers);
    DataLoader host(Samples{20}, options(workers));
    DataLoader gpu = host.on_device(Device::cuda);
    const Seen first = seen_by(host, 3);
    CHECK(seen_by(gpu, 3) == first);
    CHECK(gpu.state() == host.state());
    CHECK(gpu.state().position == 9);
    DataLoader resumed = DataLoader(Samples{20}, options(0)).on_device(Device::cuda);
    resumed.load_state(gpu.state());
    host.load_state(gpu.state());
    CHECK(seen_by(resumed) == seen_by(host));
  }
}

TEST_CASE("one batch is made ahead, no more") {
  if (skipped()) return;
  const Samples samples{12};
  DataLoader loader = DataLoader(samples, {.batch_size = 2}).on_device(Device::cuda);
  int batches = 0;
  for (const auto& batch : loader) {
    static_cast<void>(batch);
    ++batches;
    CHECK(*samples.made == std::min(12, 2 * batches + 2));
  }
  CHECK(batches == 6);
}

TEST_CASE("batches lie in pinned memory before they go, which is used again") {
  if (skipped()) return;
  synchronize(Device::cuda);
  empty_cache(Device::cuda);
  DataLoader loader = DataLoader(Samples{300}, {.batch_size = 3}).on_device(Device::cuda);
  int64_t most = 0, batches = 0;
  for (const auto& batch : loader) {
    static_cast<void>(batch);
    if (++batches % 10 == 0) synchronize(Device::cuda);
    most = std::max(most, pinned_memory_stats(Device::cuda).cached);
  }
  CHECK(most > 0);
  CHECK(most <= 12 * 2 * 1024);  // of 100 batches those between two waits
  CHECK(pinned_memory_stats(Device::cuda).allocated == 0);
}

TEST_CASE("transforms see the host's batches before, the device's after") {
  if (skipped()) return;
  const auto to_one = [](Device device) {
    return [device](auto batch) {
      auto& [x, number, name] = batch;
      CHECK(x.device() == device);
      x = x * 0.0 + 1.0;
      return batch;
    };
  };
  const DataLoader host(Samples{6}, {.batch_size = 3});
  DataLoader before = host.transformed(to_one(Device::cpu)).on_device(Device::cuda);
  DataLoader after = host.on_device(Device::cuda).transformed(to_one(Device::cuda));
  for (auto* const loader : {&before, &after})
    for (auto& [x, number, name] : *loader) {
      CHECK(x.device() == Device(Device::cuda));
      CHECK(sum(x).template item<double>() == 150);
    }
}

TEST_CASE("empty batches, no batches, and batches that are on the device already") {
  if (skipped()) return;
  DataLoader last = DataLoader(Samples{5}, {.batch_size = 2}).distributed(2, 1, {}, true).on_device(Device::cuda);
  std::vector<int64_t> heights;
  for (auto& [x, number, name] : last) heights.push_back(x.size(0));
  CHECK(heights == std::vector<int64_t>{2, 0});
  DataLoader none = DataLoader(Samples{0}, {.num_workers = 2}).on_device(Device::cuda);
  CHECK(none.begin() == none.end());
  DataLoader there =
      DataLoader(TensorDataset(arange(6, {i64, Device::cuda})), {.batch_size = 4}).on_device(Device::cuda);
  std::vector<int64_t> all;
  for (auto& [x] : there)
    for (const int64_t i : x.to_vector<int64_t>()) all.push_back(i);
  CHECK(all == std::vector<int64_t>{0, 1, 2, 3, 4, 5});
  CHECK(DataLoader(Samples{5}).on_device(Device::cpu).size() == 5);
}
