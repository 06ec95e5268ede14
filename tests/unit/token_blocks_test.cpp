// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <set>

#include <loom/autograd/ops.h>
#include <loom/data/data_loader.h>
#include <loom/data/token_blocks.h>
#include <loom/tensor/create.h>

using namespace loom;
using data::RandomTokenBlocks;
using data::TokenBlocks;

namespace {

using Tokens = std::vector<int64_t>;
Tokens values(const Tensor& x) { return x.to_vector<int64_t>(); }

}  // namespace

TEST_CASE("token blocks: in order, each token's next one beside it") {
  const TokenBlocks blocks(arange(12), 3);
  CHECK(blocks.size() == 3);  // a fourth would lack the token after its last
  const auto [x, y] = blocks.get(2);
  CHECK(values(x) == Tokens{6, 7, 8});
  CHECK(values(y) == Tokens{7, 8, 9});
  CHECK(TokenBlocks(arange(13), 3).size() == 4);
  CHECK_THROWS_WITH_AS(blocks.get(3), "TokenBlocks: index 3 is out of range for 3 blocks", Error);
  CHECK_THROWS_WITH_AS(TokenBlocks(arange(3), 3),
                       "TokenBlocks: 3 tokens are fewer than a block of 3 and the token after it", Error);
  CHECK_THROWS_WITH_AS(TokenBlocks(arange(3), 0), "TokenBlocks: block_size is 0, expects at least 1", Error);
  CHECK_THROWS_WITH_AS(TokenBlocks(zeros({3}), 1), "TokenBlocks: tokens are f32 of shape [3], expects i64 of shape [n]",
                       Error);
}

TEST_CASE("token blocks: random ones begin anywhere, and depend on seed, epoch and place alone") {
  const RandomTokenBlocks blocks(arange(10), 4, 600);
  const auto begins = [&](auto loader) {
    Tokens out;
    for (auto [x, y] : loader) {
      CHECK(values(y - x) == Tokens(static_cast<size_t>(x.numel()), 1));
      for (int64_t row = 0; row < x.size(0); ++row) out.push_back(x[row][0].template item<int64_t>());
    }
    return out;
  };
  data::DataLoader loader(blocks, {.batch_size = 8, .seed = 3});
  const Tokens first = begins(loader);
  CHECK(std::set<int64_t>(first.begin(), first.end()) == std::set<int64_t>{0, 1, 2, 3, 4, 5});
  CHECK(begins(data::DataLoader(blocks, {.batch_size = 5, .num_workers = 2, .seed = 3})) == first);
  CHECK(begins(data::DataLoader(blocks, {.batch_size = 8, .seed = 4})) != first);
  loader.set_epoch(1);
  CHECK(begins(loader) != first);

  Tokens dealt(600);  // two ranks: every other sample each
  for (const int64_t rank : {0, 1}) {
    const Tokens share = begins(data::DataLoader(blocks, {.batch_size = 4, .seed = 3}).distributed(2, rank));
    for (size_t i = 0; i < share.size(); ++i) dealt[2 * i + static_cast<size_t>(rank)] = share[i];
  }
  CHECK(dealt == first);

  CHECK(values(std::get<0>(RandomTokenBlocks(arange(5), 4, 1).get(0))) == Tokens{0, 1, 2, 3});
  CHECK_THROWS_WITH_AS(RandomTokenBlocks(arange(4), 4, 1),
                       "RandomTokenBlocks: 4 tokens are fewer than a block of 4 and the token after it", Error);
  CHECK_THROWS_WITH_AS(RandomTokenBlocks(arange(5), 4, 0), "RandomTokenBlocks: samples is 0, expects at least 1",
                       Error);
}
