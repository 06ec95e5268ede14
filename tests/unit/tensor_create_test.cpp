// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <numeric>

#include <loom/tensor/context.h>

#include "tensor_test.h"

using namespace tensor_test;

TEST_CASE("create: constants in every dtype") {
  for (int i = 0; i < dtype_count; ++i) {
    const auto t = static_cast<DType>(i);
    CHECK(show(zeros({2, 1}, t)) == to_string(t) + "[2, 1] 0 0");
    CHECK(show(ones({2}, t)) == to_string(t) + "[2] 1 1");
    CHECK(show(full({2}, 1, t)) == to_string(t) + "[2] 1 1");
    CHECK(show(eye(2, t)) == to_string(t) + "[2, 2] 1 0 0 1");
    CHECK(show(zeros({}, t)) == to_string(t) + "[] 0");
    CHECK(show(ones({2, 0}, t)) == to_string(t) + "[2, 0]");
  }
}

TEST_CASE("create: full is exact in integral dtypes") {
  CHECK(full({1}, 9007199254740992.0, i64).item<int64_t>() == 9007199254740992);
  CHECK(full({1}, -0x1p63, i64).item<int64_t>() == std::numeric_limits<int64_t>::min());
  CHECK(show(full({2}, -2.7, i32)) == "i32[2] -2 -2");
  CHECK(show(full({2}, 0.5, boolean)) == "boolean[2] 1 1");
  CHECK(error_of([] { full({1}, 0x1p63, i64); }) == "full: 9223372036854775808 cannot be stored in i64");
  CHECK(error_of([] { full({1}, std::numeric_limits<double>::quiet_NaN(), i32); }) ==
        "full: nan cannot be stored in i32");
}

TEST_CASE("fill_: numbers that the dtype holds, into elements of their own") {
  const Tensor x = zeros({2}, i64);
  x.fill_(2.7);
  CHECK(show(x) == "i64[2] 2 2");
  CHECK(show(zeros({1}, boolean).fill_(0.5)) == "boolean[1] 1");
  CHECK(show(zeros({1}, u8).fill_(255)) == "u8[1] 255");
  const uint64_t version = x.version();
  CHECK(error_of([&] { x.fill_(std::numeric_limits<double>::quiet_NaN()); }) == "fill_: nan cannot be stored in i64");
  CHECK(error_of([] { zeros({2}, u8).fill_(256); }) == "fill_: 256 cannot be stored in u8");
  CHECK(error_of([] { zeros({2}, i32).fill_(1e30); }) == "fill_: 1e+30 cannot be stored in i32");
  CHECK(error_of([] { full({2}, -1, u8); }) == "full: -1 cannot be stored in u8");
  CHECK(error_of([] { zeros({1}).expand({3}).fill_(1); }) ==
        "fill_: the tensor is expanded (stride 0) at dimension 0, so several elements share one place; clone it first");
  CHECK(x.version() == version);
}

TEST_CASE("create: defaults are the rank's") {
  CHECK(empty({2}).dtype() == f32);
  Context mine = context();
  mine.default_dtype = bf16;
  const ContextGuard guard(mine);
  CHECK(zeros({2}).dtype() == bf16);
  CHECK(rand({2}).dtype() == bf16);
  CHECK(tensor({1.5}).dtype() == bf16);
  CHECK(arange(3).dtype() == i64);
  CHECK(linspace(0, 1, 3).dtype() == bf16);
}

TEST_CASE("create: what cannot be") {
  CHECK(error_of([] { zeros({-1}); }) == "zeros: extent -1 at dimension 0 is negative");
  CHECK(error_of([] { empty({2, -3}); }) == "empty: extent -3 at dimension 1 is negative");
  CHECK(error_of([] {
          ones({int64_t{1} << 40, int64_t{1} << 40});
        }) == "ones: shape [1099511627776, 1099511627776] of f32 has more bytes than can be counted");
  CHECK(error_of([] {
          zeros({0, int64_t{1} << 62}, f64);
        }) == "zeros: shape [0, 4611686018427387904] of f64 has more bytes than can be counted");
  CHECK(error_of([] { rand({2}, i64); }) == "uniform: expects a floating dtype, got i64");
}

TEST_CASE("create: arange") {
  CHECK(show(arange(4)) == "i64[4] 0 1 2 3");
  CHECK(show(arange(0)) == "i64[0]");
  CHECK(show(arange(2, 9, 3)) == "i64[3] 2 5 8");
  CHECK(show(arange(5, 0, -2)) == "i64[3] 5 3 1");
  CHECK(show(arange(3, f64)) == "f64[3] 0 1 2");
  CHECK(show(arange_real(1, 2.5, 0.5)) == "f32[3] 1 1.5 2");
  CHECK(show(arange_real(0, 1, 0.3, f64)) == "f64[4] 0 0.3 0.6 0.8999999999999999");
  CHECK(show(arange_real(0.5, 4, 1, i64)) == "i64[4] 0 1 2 3");
  CHECK(error_of([] { arange(1, 5, 0); }) == "arange: step must not be 0");
  CHECK(error_of([] { arange(1, 5, -1); }) == "arange: step -1 leads from 1 away from 5");
}

TEST_CASE("create: arange is exact beyond the integers of doubles") {
  constexpr int64_t far = 9007199254740993, top = std::numeric_limits<int64_t>::max();
  CHECK(arange(far, far + 3).to_vector<int64_t>() == std::vector<int64_t>{far, far + 1, far + 2});
  CHECK(arange(-top, top, top).to_vector<int64_t>() == std::vector<int64_t>{-top, 0});
}

TEST_CASE("create: linspace reaches both ends") {
  CHECK(show(linspace(0, 1, 5)) == "f32[5] 0 0.25 0.5 0.75 1");
  CHECK(show(linspace(3, -1, 3, f64)) == "f64[3] 3 1 -1");
  CHECK(show(linspace(2, 5, 1)) == "f32[1] 2");
  CHECK(show(linspace(2, 5, 0)) == "f32[0]");
  CHECK(show(linspace(0, 10, 4, i64)) == "i64[4] 0 3 6 10");
  CHECK(linspace(0, 0.7, 1001, f64).to_vector<double>().back() == 0.7);
  CHECK(error_of([] { linspace(0, 1, -1); }) == "linspace: the number of steps -1 is negative");
}

TEST_CASE("create: like another tensor") {
  const Tensor x = raw::transpose(counting({2, 3}, f16), 0, 1);
  CHECK(show(zeros_like(x)) == "f16[3, 2] 0 0 0 0 0 0");
  CHECK(ones_like(x).is_contiguous());
  CHECK(empty_like(x, f64).dtype() == f64);
  CHECK(show(full_like(x, 2, i32)) == "i32[3, 2] 2 2 2 2 2 2");
  CHECK(rand_like(x).shape() == Dims{3, 2});
  CHECK(randn_like(x).dtype() == f16);
}

TEST_CASE("create: literals and C++ memory") {
  CHECK(show(tensor({1, 2, 3})) == "i64[3] 1 2 3");
  CHECK(show(tensor({1.5, 2.5})) == "f32[2] 1.5 2.5");
  CHECK(show(tensor({{1.5f, 2.5f}, {3.0f, 4.0f}})) == "f32[2, 2] 1.5 2.5 3 4");
  CHECK(show(tensor({true, false})) == "boolean[2] 1 0");
  CHECK(show(tensor({1, 2}, bf16)) == "bf16[2] 1 2");
  CHECK(show(from_vector(std::vector<uint8_t>{1, 255}, {2, 1})) == "u8[2, 1] 1 255");
  CHECK(show(from_vector(std::vector<Half>{Half(0.5f)}, {})) == "f16[] 0.5");
  CHECK(show(from_vector(std::vector<double>{0.5, 2}, {2}, i64)) == "i64[2] 0 2");
  CHECK(show(from_vector(std::vector<bool>{true, false}, {2}, f32)) == "f32[2] 1 0");
  CHECK(error_of([] { from_vector(std::vector<float>{1, 2}, {3}); }) == "from_span: 2 values do not fill shape [3]");
  CHECK(error_of([] { tensor({{1, 2}, {3}}); }) == "tensor: rows of 2 and 1 values");
}

TEST_CASE("create: a blob is shared and released once") {
  float memory[4] = {1, 2, 3, 4};
  int released = 0;
  {
    Tensor x = from_blob(memory, {2, 2}, f32, {}, [&] { ++released; });
    const Tensor row = raw::select(x, 0, 1);
    x = {};
    memory[3] = 9;
    CHECK(show(row) == "f32[2] 3 9");
    CHECK(released == 0);
  }
  CHECK(released == 1);
}

TEST_CASE("create: random numbers follow the seed") {
  manual_seed(7);
  const Tensor a = rand({100}), b = rand({100});
  manual_seed(7);
  CHECK(show(rand({10, 10})) == "f32[10, 10]" + show(a).substr(8));
  CHECK(show(a) != show(b));
  CHECK(show(rand({100})) == show(b));
}

TEST_CASE("create: random numbers are what they say") {
  manual_seed(1);
  const auto uniform = rand({10000}).to_vector<double>();
  CHECK(*std::ranges::min_element(uniform) >= 0);
  CHECK(*std::ranges::max_element(uniform) < 1);
  CHECK(std::accumulate(uniform.begin(), uniform.end(), 0.0) / 10000 == doctest::Approx(0.5).epsilon(0.02));
  const auto normal = randn({10000}).to_vector<double>();
  CHECK(std::inner_product(normal.begin(), normal.end(), normal.begin(), 0.0) / 10000 ==
        doctest::Approx(1).epsilon(0.05));
  const Tensor whole = randint(-2, 3, {1000});
  CHECK(whole.dtype() == i64);
  const auto drawn = whole.to_vector<int64_t>();
  for (int64_t v = -2; v < 3; ++v) CHECK(std::ranges::count(drawn, v) > 100);
  CHECK(*std::ranges::max_element(drawn) == 2);
  CHECK(randint(0, 5, {3}, u8).dtype() == u8);
  CHECK(error_of([] { randint(3, 3, {1}); }) == "integers: low 3 is not below high 3");
}

TEST_CASE("create: randperm is a permutation that the seed decides") {
  manual_seed(3);
  const auto order = randperm(1001).to_vector<int64_t>();
  auto sorted = order;
  std::ranges::sort(sorted);
  for (int64_t i = 0; i < 1001; ++i) CHECK(sorted[static_cast<size_t>(i)] == i);
  CHECK(order != sorted);
  const Tensor next = rand({1});
  manual_seed(3);
  CHECK(randperm(1001).to_vector<int64_t>() == order);
  CHECK(show(rand({1})) == show(next));
  CHECK(show(randperm(0)) == "i64[0]");
  CHECK(randperm(3, i32).dtype() == i32);
  CHECK(error_of([] { randperm(-1); }) == "randperm: the number of values -1 is negative");
}

TEST_CASE("create: bernoulli draws each element by its own probability") {
  CHECK(show(bernoulli(tensor({0.0, 1.0, 0.0, 1.0}, f64))) == "f64[4] 0 1 0 1");
  manual_seed(5);
  const auto values = bernoulli(full({10000}, 0.3)).to_vector<double>();
  CHECK(std::accumulate(values.begin(), values.end(), 0.0) / 10000 == doctest::Approx(0.3).epsilon(0.05));
  CHECK(error_of([] {
          bernoulli(tensor({0.5, 1.5}));
        }) == "bernoulli: probabilities lie in [0, 1], got values from 0.5 to 1.5");
  CHECK(error_of([] { bernoulli(tensor({1, 0})); }) == "bernoulli: expects a floating dtype, got i64");
}

TEST_CASE("create: random numbers into memory that exists") {
  const Tensor x = zeros({4, 4});
  const Tensor column = raw::select(x, 1, 2);
  const uint64_t before = x.version();
  raw::random_into(Random::uniform, column, 5, 6);
  CHECK(x.version() == before + 1);
  for (int64_t i = 0; i < 4; ++i) {
    CHECK(raw::select(raw::select(x, 0, i), 0, 1).item<float>() == 0);
    CHECK(raw::select(column, 0, i).item<float>() >= 5);
  }
  const Tensor flags = zeros({1000}, boolean);
  raw::random_into(Random::bernoulli, flags, 0.5, 0);
  CHECK(raw::reduce(Reduce::sum, flags, {}, false).item<int64_t>() > 400);
  CHECK(error_of([&] { raw::random_into(Random::normal, x, 0, -1); }) == "normal: the deviation -1 is negative");
}
