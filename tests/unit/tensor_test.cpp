// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tensor_test.h"

using namespace tensor_test;

TEST_CASE("tensor: a handle shares its array") {
  const Tensor x = counting({2, 3});
  const Tensor y = x;  // NOLINT: the copy is the point
  CHECK(y.is_same(x));
  *y.data<float>() = 5;
  CHECK(show(x) == "f32[2, 3] 5 1 2 3 4 5");
  CHECK_FALSE(raw::alias(x).is_same(x));
  CHECK(raw::alias(x).storage() == x.storage());
}

TEST_CASE("tensor: an undefined one says so") {
  const Tensor x;
  CHECK_FALSE(x.defined());
  CHECK(error_of([&] { (void)x.shape(); }) == "the tensor is undefined (default-constructed or moved from)");
}

TEST_CASE("tensor: sizes") {
  const Tensor x = zeros({2, 3, 0});
  CHECK(x.size(0) == 2);
  CHECK(x.size(-2) == 3);
  CHECK(x.numel() == 0);
  CHECK(x.dim() == 3);
  CHECK(error_of([&] { (void)x.size(3); }) == "size: dimension 3 is out of range for a tensor of rank 3");
  CHECK(error_of([&] { (void)zeros({}).size(0); }) == "size: dimension 0 is out of range for a tensor of rank 0");
}

TEST_CASE("tensor: contiguous means row-major without gaps") {
  const Tensor x = counting({2, 3});
  CHECK(x.is_contiguous());
  CHECK_FALSE(raw::transpose(x, 0, 1).is_contiguous());
  CHECK(raw::transpose(counting({1, 3}), 0, 1).is_contiguous());
  CHECK_FALSE(raw::slice(x, 1, 0, 2, 1).is_contiguous());
  CHECK(raw::slice(x, 0, 1, 2, 1).is_contiguous());
  CHECK_FALSE(raw::expand(zeros({1}), {3}).is_contiguous());
  CHECK(raw::transpose(zeros({0, 3}), 0, 1).is_contiguous());
}

TEST_CASE("tensor: data of the right type only") {
  const Tensor x = counting({2, 3});
  CHECK(raw::select(x, 0, 1).data<float>() == x.data<float>() + 3);
  CHECK(x.span<float>().size() == 6);
  CHECK(error_of([&] { (void)x.data<double>(); }) == "data: the tensor is f32, not f64");
  CHECK(error_of([&] { (void)raw::transpose(x, 0, 1).span<float>(); }) ==
        "span: the tensor of shape [3, 2] and strides [1, 3] is not contiguous; call contiguous() first");
}

TEST_CASE("tensor: item converts") {
  CHECK(tensor({2.75}).item<double>() == 2.75);
  CHECK(tensor({2.75}).item<int>() == 2);
  CHECK(tensor({0.5}).item<bool>());
  CHECK(full({1, 1}, 3, f16).item<float>() == 3);
  CHECK(full({}, 1, boolean).item<int64_t>() == 1);
  CHECK(tensor({int64_t{9007199254740993}}).item<int64_t>() == 9007199254740993);
  CHECK(error_of([] {
          (void)zeros({2, 3}).item<float>();
        }) == "item: a tensor of shape [2, 3] has 6 elements, expected one");
}

TEST_CASE("tensor: to_vector converts and reads in row-major order") {
  const Tensor x = raw::transpose(tensor({{1.5, 0.0, -2.0}, {3.0, 4.0, 5.0}}), 0, 1);
  CHECK(x.to_vector<double>() == std::vector<double>{1.5, 3, 0, 4, -2, 5});
  CHECK(x.to_vector<float>() == std::vector<float>{1.5, 3, 0, 4, -2, 5});
  CHECK(x.to_vector<int64_t>() == std::vector<int64_t>{1, 3, 0, 4, -2, 5});
  CHECK(x.to_vector<int>() == std::vector<int>{1, 3, 0, 4, -2, 5});
  CHECK(tensor({1, 200}).to_vector<uint8_t>() == std::vector<uint8_t>{1, 200});
  CHECK(x.to_vector<bool>() == std::vector<bool>{true, true, false, true, true, true});
  CHECK(static_cast<float>(x.to_vector<Half>()[4]) == -2);
  CHECK(static_cast<float>(x.to_vector<BFloat16>()[0]) == 1.5f);
  CHECK(zeros({0, 2}).to_vector<float>().empty());
  CHECK(zeros({}).to_vector<float>() == std::vector<float>{0});
}

TEST_CASE("tensor: numbers are tensors") {
  const Tensor x = 2.5;
  CHECK(x.dim() == 0);
  CHECK(x.item<double>() == 2.5);
  CHECK(Tensor(true).dtype() == boolean);
  CHECK(Tensor(7).item<int64_t>() == 7);
  CHECK(raw::alias(x).body().wrapped_number);
}

TEST_CASE("tensor: set_data replaces the array for everybody who shares it") {
  const Tensor x = zeros({2}), y = x;  // NOLINT
  x.set_data(tensor({{1, 2}, {3, 4}}));
  CHECK(show(y) == "i64[2, 2] 1 2 3 4");
}

TEST_CASE("tensor: shapes broadcast from the right") {
  CHECK(broadcast_shapes("add", {2, 3}, {3}) == Dims{2, 3});
  CHECK(broadcast_shapes("add", {2, 1}, {1, 3}) == Dims{2, 3});
  CHECK(broadcast_shapes("add", {}, {2, 0}) == Dims{2, 0});
  CHECK(broadcast_shapes("add", {1}, {0}) == Dims{0});
  CHECK(broadcast_shapes("add", {5, 1, 3}, {4, 1}) == Dims{5, 4, 3});
  CHECK(error_of([] {
          broadcast_shapes("add", {2, 3}, {2, 4});
        }) == "add: shapes [2, 3] and [2, 4] do not broadcast (dimension 1)");
  CHECK(error_of([] {
          broadcast_shapes("add", {2}, {2, 3});
        }) == "add: shapes [2] and [2, 3] do not broadcast (dimension 1)");
  CHECK(error_of([] { broadcast_shapes("add", {2}, {0}); }) ==
        "add: shapes [2] and [0] do not broadcast (dimension 0)");
}
