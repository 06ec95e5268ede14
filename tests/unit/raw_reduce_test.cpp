// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "tensor_test.h"

using namespace tensor_test;

namespace {

Tensor sum(const Tensor& x, const Dims& dims = {}, bool keepdim = false) {
  return raw::reduce(Reduce::sum, x, dims, keepdim);
}

}  // namespace

TEST_CASE("reduce: over all, some and no dimensions") {
  const Tensor x = counting({2, 3});
  CHECK(show(sum(x)) == "f32[] 15");
  CHECK(show(sum(x, {0})) == "f32[3] 3 5 7");
  CHECK(show(sum(x, {-1})) == "f32[2] 3 12");
  CHECK(show(sum(x, {1}, true)) == "f32[2, 1] 3 12");
  CHECK(show(sum(x, {1, 0}, true)) == "f32[1, 1] 15");
  CHECK(show(sum(raw::transpose(x, 0, 1), {0})) == "f32[2] 3 12");
  CHECK(show(sum(counting({2, 3, 4}), {0, 2})) == "f32[3] 60 92 124");
  CHECK(show(sum(raw::expand(tensor({1, 2}), {3, 2}), {0})) == "i64[2] 3 6");
  CHECK(show(sum(full({}, 4))) == "f32[] 4");
  CHECK(show(sum(full({}, 4), {-1})) == "f32[] 4");
  CHECK(show(sum(zeros({0, 2}), {0})) == "f32[2] 0 0");
  CHECK(show(sum(zeros({0, 2}), {1})) == "f32[0]");
}

TEST_CASE("reduce: every kind") {
  const Tensor x = tensor({{1.0, 2.0}, {3.0, -4.0}});
  CHECK(show(raw::reduce(Reduce::mean, x, {0}, false)) == "f32[2] 2 -1");
  CHECK(show(raw::reduce(Reduce::prod, x, {1}, false)) == "f32[2] 2 -12");
  CHECK(show(raw::reduce(Reduce::max, x, {}, false)) == "f32[] 3");
  CHECK(show(raw::reduce(Reduce::min, x, {0}, true)) == "f32[1, 2] 1 -4");
  CHECK(show(raw::reduce(Reduce::sum_of_squares, x, {}, false)) == "f32[] 30");
  CHECK(show(raw::reduce(Reduce::all, x, {1}, false)) == "boolean[2] 1 1");
  CHECK(show(raw::reduce(Reduce::any, zeros({2, 0}), {1}, false)) == "boolean[2] 0 0");
  CHECK(raw::reduce(Reduce::logsumexp, x, {}, false).item<double>() ==
        doctest::Approx(std::log(std::exp(1) + std::exp(2) + std::exp(3) + std::exp(-4))));
}

TEST_CASE("reduce: integers and booleans") {
  CHECK(show(sum(tensor({200, 100}, u8))) == "i64[] 300");
  CHECK(show(sum(tensor({true, true}))) == "i64[] 2");
  CHECK(show(raw::reduce(Reduce::prod, tensor({3, 4}, i32), {}, false)) == "i64[] 12");
  CHECK(show(raw::reduce(Reduce::max, tensor({3, 4}, i32), {}, false)) == "i32[] 4");
  CHECK(show(raw::reduce(Reduce::max, tensor({true, false}), {}, false)) == "boolean[] 1");
  CHECK(show(raw::reduce(Reduce::min, tensor({true, false}), {}, false)) == "boolean[] 0");
  CHECK(show(raw::reduce(Reduce::sum_of_squares, tensor({3, 4}), {}, false)) == "f32[] 25");
  CHECK(raw::reduce(Reduce::logsumexp, tensor({1, -2}), {}, false).item<float>() == doctest::Approx(1.0485873));
  CHECK(error_of([] { raw::reduce(Reduce::mean, tensor({1}), {}, false); }) ==
        "mean: expects a floating dtype, got i64");
}

TEST_CASE("reduce: what cannot be") {
  const Tensor x = zeros({2, 3});
  CHECK(error_of([&] { sum(x, {2}); }) == "sum: dimension 2 is out of range for a tensor of rank 2");
  CHECK(error_of([&] { sum(x, {1, -1}); }) == "sum: dimension 1 appears twice in [1, -1]");
  CHECK(error_of([&] {
          raw::reduce(Reduce::max, zeros({0, 3}), {0}, false);
        }) == "max: dimension 0 of shape [0, 3] is empty and has no max");
  CHECK(show(raw::reduce(Reduce::max, zeros({0, 3}), {1}, false)) == "f32[0]");
}

TEST_CASE("reduce: sum_to undoes broadcasting") {
  const Tensor x = counting({2, 3, 4});
  CHECK(raw::sum_to(x, {2, 3, 4}).is_same(x));
  CHECK(show(raw::sum_to(x, {3, 1})) == "f32[3, 1] 60 92 124");
  CHECK(show(raw::sum_to(x, {})) == "f32[] 276");
  CHECK(show(raw::sum_to(x, {1, 1, 4})) == "f32[1, 1, 4] 60 66 72 78");
  CHECK(show(raw::sum_to(x, {4})) == "f32[4] 60 66 72 78");
  CHECK(show(raw::sum_to(zeros({0, 2}), {1, 2})) == "f32[1, 2] 0 0");
  CHECK(error_of([&] {
          raw::sum_to(x, {2, 4});
        }) == "sum_to: shapes [2, 4] and [2, 3, 4] do not broadcast (dimension 1)");
}

TEST_CASE("reduce: positions of extrema") {
  const Tensor x = tensor({{1.0, 5.0, 5.0}, {7.0, 2.0, 2.0}});
  const auto [value, index] = raw::arg_reduce(ArgReduce::max, x, 1, false);
  CHECK(show(value) == "f32[2] 5 7");
  CHECK(show(index) == "i64[2] 1 0");
  CHECK(show(raw::arg_reduce(ArgReduce::min, x, -1, true).second) == "i64[2, 1] 0 1");
  CHECK(show(raw::arg_reduce(ArgReduce::max, raw::transpose(x, 0, 1), 1, false).second) == "i64[3] 1 0 0");
  CHECK(show(raw::arg_reduce(ArgReduce::max, tensor({false, true}), 0, false).first) == "boolean[] 1");
  CHECK(show(raw::arg_reduce(ArgReduce::min, full({}, 3), 0, true).second) == "i64[] 0");
  CHECK(show(raw::arg_reduce(ArgReduce::max, zeros({0, 2}), 1, false).second) == "i64[0]");
  CHECK(error_of([] {
          raw::arg_reduce(ArgReduce::max, zeros({0, 2}), 0, false);
        }) == "argmax: dimension 0 of shape [0, 2] is empty");
}

TEST_CASE("reduce: running sums") {
  CHECK(show(raw::cumulative(Cumulative::sum, counting({2, 3}), 1)) == "f32[2, 3] 0 1 3 3 7 12");
  CHECK(show(raw::cumulative(Cumulative::sum, counting({2, 3}), 0)) == "f32[2, 3] 0 1 2 3 5 7");
  CHECK(show(raw::cumulative(Cumulative::product, tensor({2, 3, 4}, i32), -1)) == "i64[3] 2 6 24");
  CHECK(show(raw::cumulative(Cumulative::sum, tensor({true, true}), 0)) == "i64[2] 1 2");
  CHECK(show(raw::cumulative(Cumulative::sum, full({}, 2), 0)) == "f32[] 2");
  CHECK(show(raw::cumulative(Cumulative::sum, zeros({0}), 0)) == "f32[0]");
  CHECK(error_of([] { raw::cumulative(Cumulative::sum, zeros({2}), 1); }) ==
        "cumsum: dimension 1 is out of range for a tensor of rank 1");
}

TEST_CASE("reduce: sorting") {
  const Tensor x = tensor({{3.0, 1.0, 2.0}, {0.0, 5.0, 5.0}});
  const auto [values, index] = raw::sort("sort", x, 1, false, 3);
  CHECK(show(values) == "f32[2, 3] 1 2 3 0 5 5");
  CHECK(show(index) == "i64[2, 3] 1 2 0 0 1 2");
  CHECK(show(raw::sort("topk", x, -1, true, 2).first) == "f32[2, 2] 3 2 5 5");
  CHECK(show(raw::sort("topk", x, -1, true, 2).second) == "i64[2, 2] 0 2 1 2");
  CHECK(show(raw::sort("sort", x, 0, false, 2).first) == "f32[2, 3] 0 1 2 3 5 5");
  CHECK(show(raw::sort("topk", x, 1, true, 0).first) == "f32[2, 0]");
  CHECK(show(raw::sort("sort", tensor({true, false}), 0, false, 2).first) == "boolean[2] 0 1");
  CHECK(show(raw::sort("sort", full({}, 2), 0, false, 1).second) == "i64[] 0");
  CHECK(show(raw::sort("sort", tensor({std::nan(""), 1.0}), 0, false, 2).second) == "i64[2] 1 0");
  CHECK(error_of([&] { raw::sort("topk", x, 1, true, 4); }) == "topk: k 4 is out of range for dimension 1 of size 3");
}
