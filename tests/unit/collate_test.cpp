// SPDX-License-Identifier: Apache-2.0
// How samples become batches.
#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include <loom/data/data_loader.h>

using namespace loom;
using namespace loom::data;
using Indices = std::vector<int64_t>;

namespace {

Indices values(const Tensor& x) { return x.to_vector<int64_t>(); }

}  // namespace

TEST_CASE("data loader: collation of tuples, arrays, vectors, texts and structs") {
  struct Sample {
    Tensor image;
    std::array<float, 2> box;
    std::vector<int> tokens;
    bool flipped;
    std::string name;
  };
  struct Source {
    int64_t size() const { return 2; }
    Sample get(int64_t i) const {
      return {
          full({2}, static_cast<double>(i), {f16, Device::cpu}), {0.5F, 1.5F}, {1, 2, 3}, i == 1, std::to_string(i)};
    }
  };
  DataLoader loader(Source{}, {.batch_size = 2});
  for (auto [image, box, tokens, flipped, name] : loader) {
    CHECK(image.shape() == Dims{2, 2});
    CHECK(image.dtype() == f16);
    CHECK(box[1].dtype() == f32);
    CHECK(box[1].template to_vector<float>() == std::vector<float>{1.5F, 1.5F});
    REQUIRE(tokens.size() == 3);
    CHECK(values(tokens[2]) == Indices{3, 3});
    CHECK(flipped.dtype() == boolean);
    CHECK(values(flipped) == Indices{0, 1});
    CHECK(name == std::vector<std::string>{"0", "1"});
  }
}

TEST_CASE("data loader: a struct of tensors stays one; batches may be transformed") {
  struct Pair {
    Tensor x, y;
  };
  struct Source {
    int64_t size() const { return 3; }
    Pair get(int64_t i) const {
      return {full({}, static_cast<double>(i), {f32, Device::cpu}), full({1}, 2, {i64, Device::cpu})};
    }
  };
  const DataLoader plain(Source{}, {.batch_size = 3, .num_workers = 1});
  DataLoader moved = plain.transformed(
      [](Pair batch) { return map_tensors([](const Tensor& t) { return raw::cast(t, f64); }, std::move(batch)); });
  DataLoader twice = moved.transformed([](const Pair& batch) { return Pair{batch.y, batch.x}; });
  for (Pair& batch : moved) {
    CHECK(batch.x.dtype() == f64);
    CHECK(batch.x.shape() == Dims{3});
    CHECK(batch.y.shape() == Dims{3, 1});
  }
  for (Pair& batch : twice) CHECK(batch.x.shape() == Dims{3, 1});
}

TEST_CASE("data loader: a collate function of the user's; unequal shapes") {
  struct Ragged {
    int64_t size() const { return 3; }
    Tensor get(int64_t i) const { return ones({i + 1}, {f32, Device::cpu}); }
  };
  DataLoader loader(Ragged{}, {.batch_size = 3}, [](std::span<const Tensor> samples) {
    return raw::cat(std::vector<Tensor>(samples.begin(), samples.end()), 0);
  });
  for (const Tensor& batch : loader) CHECK(batch.shape() == Dims{6});
  DataLoader stacked(Ragged{}, {.batch_size = 3});
  const auto loop = [&] {
    for ([[maybe_unused]] auto& batch : stacked) {
    }
  };
  CHECK_THROWS_WITH_AS(
      loop(),
      "collate: sample 1 has shape [2], sample 0 [1]; pad them to one shape, or give the loader a collate "
      "function",
      Error);
}
