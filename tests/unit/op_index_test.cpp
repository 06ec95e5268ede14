// SPDX-License-Identifier: Apache-2.0
// PyTorch's indexing: which elements, in what order, and whether the result is a view.
#include <doctest/doctest.h>

#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

Tensor counted(const Dims& shape) { return arange(shape.numel()).reshape(shape); }

}  // namespace

TEST_CASE("positions, slices and new axes make views") {
  const Tensor x = counted({3, 4});
  for (const Tensor& y : {x.index({1}), x.index({Slice{1, {}}, Slice{{}, {}, 2}}), x.index({new_axis, ellipsis, -1})})
    CHECK(y.storage() == x.storage());
  CHECK(equal(x.index({Slice{1, {}}, Slice{{}, {}, 2}}), tensor({{4, 6}, {8, 10}})));
  CHECK(equal(x.index({new_axis, ellipsis, -1}), tensor({{3, 7, 11}})));
  CHECK(equal(x.index({}), x));
}

TEST_CASE("lists of positions broadcast and pair up") {
  const Tensor x = counted({3, 4});
  CHECK(equal(x.index({Index(tensor({2, 0}))}), tensor({{8, 9, 10, 11}, {0, 1, 2, 3}})));
  CHECK(equal(x.index({Index(tensor({2, 0})), Index(tensor({1, -1}))}), tensor({9, 3})));
  CHECK(equal(x.index({Index(tensor({{2}, {0}})), Index(tensor({1, 3}))}), tensor({{9, 11}, {1, 3}})));
  CHECK(equal(x.index({Index(tensor({2, 0})), 1}), tensor({9, 1})));
  CHECK(equal(x.index({Slice{}, Index(tensor({-1, -4}))}), tensor({{3, 0}, {7, 4}, {11, 8}})));
}

TEST_CASE("where the selected dimensions go") {
  const Tensor x = counted({2, 3, 4, 5}), two = tensor({0, 1}), pair = tensor({{0, 1, 2}, {2, 1, 0}});
  CHECK(x.index({Slice{}, Index(two)}).shape() == Dims{2, 2, 4, 5});
  CHECK(x.index({Slice{}, Index(pair), Index(pair)}).shape() == Dims{2, 2, 3, 5});  // adjoining: in place
  CHECK(x.index({Index(two), Slice{}, Index(two)}).shape() == Dims{2, 3, 5});       // apart: in front
  CHECK(x.index({Slice{}, Index(two), Slice{}, Index(two)}).shape() == Dims{2, 2, 4});
  CHECK(x.index({0, Slice{}, Index(two)}).shape() == Dims{3, 2, 5});  // a position is no list here
  CHECK(x.index({Slice{}, Index(two), new_axis, Index(two)}).shape() == Dims{2, 2, 1, 5});
  CHECK(equal(x.index({Slice{}, Index(two), Slice{}, Index(two)})[1], x.select(1, 1).select(2, 1)));
}

TEST_CASE("masks") {
  const Tensor x = counted({3, 4}), rows = tensor({1, 0, 1}).to(boolean);
  CHECK(equal(x.index({Index(rows)}), tensor({{0, 1, 2, 3}, {8, 9, 10, 11}})));
  CHECK(equal(x.index({Index(x > 8)}), tensor({9, 10, 11})));
  CHECK(equal(x.index({Index(rows), Index(tensor({1, 2}))}), tensor({1, 10})));
  CHECK(x.index({Index(x < 0)}).shape() == Dims{0});
  CHECK(x.index({Index(ones({}, boolean))}).shape() == Dims{1, 3, 4});
  CHECK(x.index({Index(zeros({}, boolean))}).shape() == Dims{0, 3, 4});
  CHECK(equal(masked_select(x, x % 5 == 0), tensor({0, 5, 10})));
}

TEST_CASE("writing at indices") {
  const Tensor x = zeros({3, 2}, i64);
  CHECK(equal(index_put(x, {Index(tensor({2, 0}))}, tensor({{1, 2}, {3, 4}})), tensor({{3, 4}, {0, 0}, {1, 2}})));
  CHECK(equal(index_put(x, {Index(tensor({1, 1, -2}))}, tensor({5, 6}), true), tensor({{0, 0}, {15, 18}, {0, 0}})));
  CHECK(equal(x, zeros({3, 2}, i64)));
  x.index_put_({Slice{}, 1}, 7);
  CHECK(equal(x, tensor({{0, 7}, {0, 7}, {0, 7}})));
  x.index_put_({Index(x == 7)}, tensor({1, 2, 3}));
  CHECK(equal(x, tensor({{0, 1}, {0, 2}, {0, 3}})));
}

TEST_CASE("rows of an embedding that pad get no gradient") {
  Tensor weight = ones({4, 2}, f64);
  weight.requires_grad_();
  const Tensor g = grad(sum(embedding(tensor({{1, 2}, {2, 3}}), weight, 2)), weight);
  CHECK(equal(g, tensor({{0.0, 0.0}, {1.0, 1.0}, {0.0, 0.0}, {1.0, 1.0}}, f64)));
}

TEST_CASE("one_hot") {
  CHECK(equal(one_hot(tensor({2, 0})), tensor({{0, 0, 1}, {1, 0, 0}})));
  CHECK(one_hot(tensor({{0, 1}}), 5).shape() == Dims{1, 2, 5});
}
