// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <loom/accelerators/threads.h>

#include "tensor_test.h"

using namespace tensor_test;

TEST_CASE("index: select by a list") {
  const Tensor x = counting({3, 2}), index = tensor({2, 0, 2});
  CHECK(show(raw::index_select(x, 0, index)) == "f32[3, 2] 4 5 0 1 4 5");
  CHECK(show(raw::index_select(x, -1, tensor({1}))) == "f32[3, 1] 1 3 5");
  CHECK(show(raw::index_select(raw::transpose(x, 0, 1), 1, index)) == "f32[2, 3] 4 0 4 5 1 5");
  CHECK(show(raw::index_select(x, 0, full({}, 1, i64))) == "f32[1, 2] 2 3");
  CHECK(show(raw::index_select(x, 0, zeros({0}, i64))) == "f32[0, 2]");
  CHECK(show(raw::index_select(tensor({true, false}), 0, tensor({1, 0}))) == "boolean[2] 0 1");
  CHECK(error_of([&] { raw::index_select(x, 0, tensor({1.0})); }) == "index_select: index must be i64, got f32");
  CHECK(error_of([&] {
          raw::index_select(x, 0, zeros({1, 1}, i64));
        }) == "index_select: index must have one dimension, got shape [1, 1]");
  CHECK(error_of([&] { raw::index_select(x, 0, tensor({3})); }) ==
        "index_select: index 3 is out of range for dimension 0 of size 3");
}

TEST_CASE("index: add by a list") {
  const Tensor x = zeros({3, 2});
  const Tensor y = raw::index_add(x, 0, tensor({2, 0, 2}), counting({3, 2}));
  CHECK(show(y) == "f32[3, 2] 2 3 0 0 4 6");
  CHECK(show(x) == "f32[3, 2] 0 0 0 0 0 0");
  CHECK(error_of([&] {
          raw::index_add(x, 0, tensor({0}), zeros({2, 2}));
        }) == "index_add: source must have shape [1, 2], got [2, 2]");
  CHECK(error_of([&] {
          raw::index_add(x, 0, tensor({0}), zeros({1, 2}, f64));
        }) == "index_add: dtypes f32 and f64 differ; convert one with .to(dtype)");
}

TEST_CASE("index: gather") {
  const Tensor x = counting({3, 3});
  CHECK(show(raw::gather(x, 1, tensor({{0, 2}, {1, 1}}))) == "f32[2, 2] 0 2 4 4");
  CHECK(show(raw::gather(x, 0, tensor({{0, 2}, {1, 1}}))) == "f32[2, 2] 0 7 3 4");
  CHECK(show(raw::gather(x, -1, tensor({{0, 1, 2, 0}}))) == "f32[1, 4] 0 1 2 0");
  CHECK(show(raw::gather(full({}, 5), 0, full({}, 0, i64))) == "f32[] 5");
  CHECK(show(raw::gather(x, 0, zeros({0, 3}, i64))) == "f32[0, 3]");
  CHECK(error_of([&] { raw::gather(x, 0, zeros({1, 3})); }) == "gather: index must be i64, got f32");
  CHECK(error_of([&] { raw::gather(x, 0, tensor({0})); }) ==
        "gather: index of shape [1] and input of shape [3, 3] differ in rank");
  CHECK(error_of([&] {
          raw::gather(x, 0, zeros({1, 4}, i64));
        }) == "gather: index of shape [1, 4] exceeds the input of shape [3, 3] at dimension 1");
  CHECK(error_of([&] {
          raw::gather(x, 0, full({1, 1}, -1, i64));
        }) == "gather: index -1 is out of range for dimension 0 of size 3");
}

TEST_CASE("index: scatter") {
  const Tensor x = zeros({2, 3}), index = tensor({{0, 2}, {1, 1}});
  CHECK(show(raw::scatter(Scatter::assign, x, 1, index, tensor({{1.0, 2.0}, {3.0, 4.0}}))) == "f32[2, 3] 1 0 2 0 4 0");
  CHECK(show(raw::scatter(Scatter::add, x, 1, index, tensor({{1.0, 2.0}, {3.0, 4.0}}))) == "f32[2, 3] 1 0 2 0 7 0");
  CHECK(show(raw::scatter(Scatter::add, x, 1, index, counting({5, 5}))) == "f32[2, 3] 0 0 1 0 11 0");
  CHECK(show(raw::scatter(Scatter::assign, x, 1, index, raw::expand(ones({}), {2, 2}))) == "f32[2, 3] 1 0 1 0 1 0");
  CHECK(show(raw::scatter(Scatter::assign, x, 1, zeros({0, 0}, i64), zeros({0, 0}))) == "f32[2, 3] 0 0 0 0 0 0");
  CHECK(error_of([&] {
          raw::scatter(Scatter::add, x, 1, index, zeros({2, 1}));
        }) == "scatter_add: index of shape [2, 2] exceeds the source of shape [2, 1] at dimension 1");
  CHECK(error_of([&] {
          raw::scatter(Scatter::assign, x, 1, zeros({3, 1}, i64), zeros({3, 1}));
        }) == "scatter: index of shape [3, 1] exceeds the input of shape [2, 3] at dimension 0");
  CHECK(error_of([&] {
          raw::scatter(Scatter::assign, x, 1, index, zeros({2, 2}, f64));
        }) == "scatter: dtypes f32 and f64 differ; convert one with .to(dtype)");
}

TEST_CASE("index: cat joins and promotes") {
  const Tensor x = counting({2, 2});
  CHECK(show(raw::cat({x, x}, 0)) == "f32[4, 2] 0 1 2 3 0 1 2 3");
  CHECK(show(raw::cat({x, raw::transpose(x, 0, 1)}, -1)) == "f32[2, 4] 0 1 0 2 2 3 1 3");
  CHECK(show(raw::cat({tensor({true}), tensor({2}, u8), tensor({3})}, 0)) == "i64[3] 1 2 3");
  CHECK(show(raw::cat({zeros({0}), x}, 1)) == "f32[2, 2] 0 1 2 3");
  CHECK(show(raw::cat({zeros({0}), zeros({0})}, 0)) == "f32[0]");
  CHECK(error_of([] { raw::cat({}, 0); }) == "cat: needs at least one tensor");
  CHECK(error_of([&] { raw::cat({x, zeros({})}, 0); }) == "cat: tensor 1 is 0-dimensional; stack joins those");
  CHECK(error_of([&] { raw::cat({x, zeros({2})}, 0); }) == "cat: tensor 1 of shape [2] differs in rank from [2, 2]");
  CHECK(error_of([&] {
          raw::cat({x, zeros({2, 3})}, 0);
        }) == "cat: tensor 1 of shape [2, 3] differs from [2, 2] at dimension 1, outside of dimension 0 to join along");
}

TEST_CASE("index: flip and triangles") {
  const Tensor x = counting({2, 3});
  CHECK(show(raw::flip(x, {1})) == "f32[2, 3] 2 1 0 5 4 3");
  CHECK(show(raw::flip(x, {0, -1})) == "f32[2, 3] 5 4 3 2 1 0");
  CHECK(show(raw::flip(raw::transpose(x, 0, 1), {0})) == "f32[3, 2] 2 5 1 4 0 3");
  CHECK(show(raw::flip(zeros({0}), {0})) == "f32[0]");
  CHECK(error_of([&] { raw::flip(x, {0, 0}); }) == "flip: dimension 0 appears twice in [0, 0]");
  const Tensor y = ones({3, 3}, i32);
  CHECK(show(raw::triangle(y, 0, true)) == "i32[3, 3] 1 1 1 0 1 1 0 0 1");
  CHECK(show(raw::triangle(y, -1, false)) == "i32[3, 3] 0 0 0 1 0 0 1 1 0");
  CHECK(show(raw::triangle(counting({2, 2, 2}), 1, true)) == "f32[2, 2, 2] 0 1 0 0 0 5 0 0");
  CHECK(error_of([] { raw::triangle(zeros({3}), 0, true); }) == "triu: expects at least 2 dimensions, got shape [3]");
}

TEST_CASE("index: nonzero") {
  CHECK(show(raw::nonzero(tensor({{0.0, 2.0}, {3.0, 0.0}}))) == "i64[2, 2] 0 1 1 0");
  CHECK(show(raw::nonzero(raw::transpose(tensor({{0, 1}, {0, 1}, {0, 0}}), 0, 1))) == "i64[2, 2] 1 0 1 1");
  CHECK(show(raw::nonzero(zeros({3}))) == "i64[0, 1]");
  CHECK(show(raw::nonzero(zeros({0, 2}))) == "i64[0, 2]");
  CHECK(show(raw::nonzero(full({}, 1))) == "i64[1, 0]");
  CHECK(show(raw::nonzero(full({}, 0))) == "i64[0, 0]");
  for (const int64_t apart : {2, 13, 97}) {
    std::vector<int64_t> given, expected;  // [7, 5, 11]
    for (int64_t i = 0; i < 7 * 5 * 11; ++i) {
      given.push_back(i * 7919 % apart == 1 ? 1 : 0);
      if (given.back() != 0) expected.insert(expected.end(), {i / 55, i / 11 % 5, i % 11});
    }
    const Tensor places = raw::nonzero(from_vector(given, {7, 5, 11}));
    CHECK(std::ranges::equal(places.span<int64_t>(), expected));
  }
}

TEST_CASE("index: nonzero of any number of elements, few of them set, many, and both in turns") {
  for (const int64_t n : {1, 7, 63, 64, 65, 127, 1023, 1025, 16383, 16384, 16385, 50'001})
    for (const int64_t apart : {1, 2, 16, 300, 0}) {
      std::vector<int64_t> given(n), expected;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t gap = apart == 0 ? i / 5000 % 3 * 40 + 1 : apart;
        given[i] = i * 7919 % gap == gap / 2 || i == n - 1 ? 1 : 0;
        if (given[i] != 0) expected.push_back(i);
      }
      CHECK(std::ranges::equal(raw::nonzero(from_vector(given, {n})).span<int64_t>(), expected));
    }
}

TEST_CASE("index: nonzero of whole words among nothing") {
  for (const int64_t n : {700, 16384, 40'000})
    for (const int64_t first : {0, 65, 333}) {
      std::vector<int64_t> given(n), expected;
      for (int64_t i = first; i < first + 310; ++i) {
        given[i] = 1;
        expected.push_back(i);
      }
      CHECK(std::ranges::equal(raw::nonzero(from_vector(given, {n})).span<int64_t>(), expected));
    }
}

TEST_CASE("index: nonzero of many, on any number of threads") {
  const int64_t n = 2557 * 77, before = num_threads();
  for (const int64_t apart : {1, 2, 15, 17, 50, 100'000}) {
    std::vector<int64_t> given(n), expected;
    for (int64_t i = 0; i < n; ++i) {
      given[i] = i * 7919 % n % apart == apart / 2 ? 1 : 0;
      if (given[i] != 0) expected.insert(expected.end(), {i / 77, i % 77});
    }
    const Tensor x = from_vector(given, {2557, 77});
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      CHECK(std::ranges::equal(raw::nonzero(x).span<int64_t>(), expected));
      const Tensor flat = raw::nonzero(from_vector(given, {n}));
      bool same = flat.numel() * 2 == std::ssize(expected);
      for (int64_t i = 0; same && i < flat.numel(); ++i)
        same = flat.span<int64_t>()[i] == expected[2 * i] * 77 + expected[2 * i + 1];
      CHECK(same);
    }
  }
  set_num_threads(before);
}
