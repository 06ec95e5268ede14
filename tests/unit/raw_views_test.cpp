// SPDX-License-Identifier: Apache-2.0
#include "tensor_test.h"

using namespace tensor_test;

namespace {

void check_is_view(const Tensor& view, const Tensor& of) { CHECK(view.storage() == of.storage()); }

}  // namespace

TEST_CASE("views: reshape shares where it can") {
  const Tensor x = counting({2, 3, 4});
  check_is_view(raw::reshape(x, {6, 4}), x);
  CHECK(raw::reshape(x, {-1, 8}).shape() == Dims{3, 8});
  CHECK(raw::reshape(x, {24}).shape() == Dims{24});
  const Tensor t = raw::transpose(x, 1, 2);  // [2, 4, 3], strides [12, 1, 4]
  check_is_view(raw::reshape(t, {2, 2, 2, 3}), x);
  CHECK(show(raw::reshape(t, {2, 2, 2, 3})) == "f32[2, 2, 2, 3]" + show(raw::clone(t)).substr(12));
  CHECK_FALSE(raw::try_view(t, {8, 3}).has_value());
  CHECK(raw::reshape(t, {8, 3}).storage() != x.storage());
  CHECK(show(raw::reshape(t, {8, 3})) == "f32[8, 3]" + show(t).substr(12));
  CHECK(raw::reshape(zeros({}), {1, 1}).shape() == Dims{1, 1});
  CHECK(raw::reshape(zeros({1, 1}), {}).shape() == Dims{});
  CHECK(raw::reshape(zeros({0, 3}), {3, 0}).shape() == Dims{3, 0});
  const Tensor repeated = raw::expand(tensor({1, 2}), {3, 2});
  check_is_view(raw::reshape(repeated, {3, 2, 1}), repeated);
  CHECK(show(raw::reshape(repeated, {6})) == "i64[6] 1 2 1 2 1 2");
}

TEST_CASE("views: the extent left open is inferred") {
  CHECK(raw::infer_shape("reshape", {2, -1}, 6) == Dims{2, 3});
  CHECK(raw::infer_shape("reshape", {-1}, 0) == Dims{0});
  CHECK(error_of([] {
          raw::infer_shape("view", {-1, -1}, 6);
        }) == "view: shape [-1, -1] leaves more than one extent (-1) open");
  CHECK(error_of([] { raw::infer_shape("view", {4, 2}, 6); }) == "view: shape [4, 2] has 8 elements, the tensor has 6");
  CHECK(error_of([] {
          raw::infer_shape("view", {4, -1}, 6);
        }) == "view: no extent in place of -1 makes shape [4, -1] hold 6 elements");
  CHECK(error_of([] {
          raw::infer_shape("view", {0, -1}, 0);
        }) == "view: no extent in place of -1 makes shape [0, -1] hold 0 elements");
  CHECK(error_of([] { raw::infer_shape("view", {-2}, 6); }) == "view: extent -2 at dimension 0 is negative");
}

TEST_CASE("views: permute and transpose") {
  const Tensor x = counting({2, 3});
  CHECK(show(raw::transpose(x, 0, -1)) == "f32[3, 2] 0 3 1 4 2 5");
  CHECK(show(raw::permute(x, {-1, 0})) == "f32[3, 2] 0 3 1 4 2 5");
  CHECK(raw::permute(zeros({2, 3, 4}), {2, 0, 1}).strides() == Dims{1, 12, 4});
  CHECK(raw::transpose(zeros({}), 0, -1).shape() == Dims{});
  CHECK(error_of([&] { raw::permute(x, {0}); }) == "permute: [0] does not name the 2 dimensions of shape [2, 3]");
  CHECK(error_of([&] { raw::permute(x, {0, -2}); }) == "permute: dimension 0 appears twice in [0, -2]");
  CHECK(error_of([&] { raw::transpose(x, 0, 2); }) == "transpose: dimension 2 is out of range for a tensor of rank 2");
}

TEST_CASE("views: expand repeats extents of 1") {
  const Tensor x = tensor({{1}, {2}});
  CHECK(show(raw::expand(x, {2, 2, 3})) == "i64[2, 2, 3] 1 1 1 2 2 2 1 1 1 2 2 2");
  CHECK(raw::expand(x, {-1, 4}).shape() == Dims{2, 4});
  CHECK(raw::expand(x, {2, 0}).shape() == Dims{2, 0});
  CHECK(error_of([&] { raw::expand(x, {3, 3}); }) == "expand: shape [2, 1] does not expand to [3, 3] (dimension 0)");
  CHECK(error_of([&] { raw::expand(x, {2}); }) == "expand: shape [2] has fewer dimensions than [2, 1]");
  CHECK(error_of([&] {
          raw::expand(x, {-1, 2, 1});
        }) == "expand: extent -1 at dimension 0 of a new dimension is negative");
}

TEST_CASE("views: squeeze and unsqueeze") {
  const Tensor x = counting({2, 1, 3});
  CHECK(raw::squeeze(x, 1).shape() == Dims{2, 3});
  CHECK(raw::squeeze(x, 0).shape() == Dims{2, 1, 3});
  CHECK(raw::squeeze(zeros({}), -1).shape() == Dims{});
  CHECK(raw::unsqueeze(x, 0).shape() == Dims{1, 2, 1, 3});
  CHECK(raw::unsqueeze(x, -1).shape() == Dims{2, 1, 3, 1});
  CHECK(raw::unsqueeze(zeros({}), 0).shape() == Dims{1});
  CHECK(raw::unsqueeze(raw::transpose(counting({2, 3}), 0, 1), 2).strides() == Dims{1, 3, 1});
  CHECK(error_of([&] { raw::unsqueeze(x, 4); }) == "unsqueeze: dimension 4 is out of range for a tensor of rank 4");
}

TEST_CASE("views: slice and select") {
  const Tensor x = counting({3, 4});
  CHECK(show(raw::slice(x, 0, 1, 3, 1)) == "f32[2, 4] 4 5 6 7 8 9 10 11");
  CHECK(show(raw::slice(x, -1, 0, 4, 3)) == "f32[3, 2] 0 3 4 7 8 11");
  CHECK(show(raw::slice(x, 1, 1, 4, 2)) == "f32[3, 2] 1 3 5 7 9 11");
  CHECK(raw::slice(x, 0, 3, 3, 1).shape() == Dims{0, 4});
  CHECK(show(raw::select(x, 1, -1)) == "f32[3] 3 7 11");
  CHECK(show(raw::select(raw::select(x, 0, 2), 0, 0)) == "f32[] 8");
  CHECK(error_of([&] { raw::slice(x, 0, 2, 4, 1); }) == "slice: 2:4 is not inside dimension 0 of size 3");
  CHECK(error_of([&] { raw::slice(x, 0, 0, 2, 0); }) == "slice: step must be positive, got 0");
  CHECK(error_of([&] { raw::select(x, 0, 3); }) == "select: index 3 is out of range for dimension 0 of size 3");
  CHECK(error_of([&] { raw::select(x, 0, -4); }) == "select: index -4 is out of range for dimension 0 of size 3");
  CHECK(error_of([&] { raw::select(zeros({}), 0, 0); }) == "select: a 0-dimensional tensor has nothing to select from");
}

TEST_CASE("views: diagonals") {
  const Tensor x = counting({3, 4});
  CHECK(show(raw::diagonal(x, 0, 0, 1)) == "f32[3] 0 5 10");
  CHECK(show(raw::diagonal(x, 2, 0, 1)) == "f32[2] 2 7");
  CHECK(show(raw::diagonal(x, -1, 0, 1)) == "f32[2] 4 9");
  CHECK(show(raw::diagonal(x, 1, 1, 0)) == "f32[2] 4 9");
  CHECK(raw::diagonal(x, 4, 0, 1).shape() == Dims{0});
  CHECK(raw::diagonal(x, 9, 0, 1).shape() == Dims{0});
  CHECK(raw::diagonal(zeros({2, 3, 4}), 0, 0, 2).shape() == Dims{3, 2});
  CHECK(error_of([&] { raw::diagonal(x, 0, 1, -1); }) == "diagonal: both dimensions are 1");
}

TEST_CASE("views: as_strided stays inside the storage") {
  const Tensor x = counting({6});
  CHECK(show(raw::as_strided(x, {2, 2}, {1, 2}, 1)) == "f32[2, 2] 1 3 2 4");
  CHECK(show(raw::as_strided(raw::slice(x, 0, 2, 6, 1), {2}, {1}, 0)) == "f32[2] 0 1");
  CHECK(error_of([&] {
          raw::as_strided(x, {2, 3}, {3, 1}, 1);
        }) == "as_strided: shape [2, 3] with strides [3, 1] and offset 1 reaches outside the storage of 6 elements");
  CHECK(error_of([&] { raw::as_strided(x, {2}, {-1}, 0); }) ==
        "as_strided: shape [2] with strides [-1] and offset 0 reaches outside the storage of 6 elements");
}

TEST_CASE("copies: contiguous, clone, cast") {
  const Tensor x = counting({2, 3}), t = raw::transpose(x, 0, 1);
  CHECK(raw::contiguous(x).is_same(x));
  CHECK(raw::contiguous(t).is_contiguous());
  CHECK(show(raw::contiguous(t)) == "f32[3, 2] 0 3 1 4 2 5");
  CHECK(raw::clone(x).storage() != x.storage());
  CHECK(raw::cast(x, f32).is_same(x));
  CHECK(show(raw::cast(t, boolean)) == "boolean[3, 2] 0 1 1 1 1 1");
  CHECK(show(raw::cast(tensor({-1.9, 2.9}), i32)) == "i32[2] -1 2");
  CHECK(show(raw::cast(tensor({65535.0, 1.0}), f16)) == "f16[2] inf 1");
  CHECK(show(raw::cast(raw::expand(tensor({1, 2}), {2, 2}), bf16)) == "bf16[2, 2] 1 2 1 2");
  CHECK(raw::to_device(x, Device()).is_same(x));
}

TEST_CASE("copies: into memory that exists") {
  const Tensor x = zeros({2, 3}, i64);
  const uint64_t before = x.version();
  raw::copy_into(x, tensor({1.9, 2.9, 3.9}));
  CHECK(show(x) == "i64[2, 3] 1 2 3 1 2 3");
  CHECK(x.version() == before + 1);
  raw::copy_into(raw::select(x, 1, 0), 7);
  CHECK(show(x) == "i64[2, 3] 7 2 3 7 2 3");
  CHECK(error_of([&] { raw::copy_into(x, zeros({2})); }) ==
        "copy_: shapes [2, 3] and [2] do not broadcast (dimension 1)");
  CHECK(error_of([&] {
          raw::copy_into(x, zeros({4, 2, 3}));
        }) == "copy_: shape [4, 2, 3] does not broadcast to [2, 3]");
  CHECK(error_of([&] { raw::copy_into(raw::expand(zeros({1}), {3}), 1); }) ==
        "copy_: the tensor is expanded (stride 0) at dimension 0, so several elements share one place; clone it first");
}

TEST_CASE("copies: source and target may share memory") {
  const Tensor x = counting({3, 3});
  raw::copy_into(x, raw::transpose(x, 0, 1));
  CHECK(show(x) == "f32[3, 3] 0 3 6 1 4 7 2 5 8");
  const Tensor y = counting({5});
  raw::copy_into(raw::slice(y, 0, 1, 5, 1), raw::slice(y, 0, 0, 4, 1));
  CHECK(show(y) == "f32[5] 0 0 1 2 3");
  raw::copy_into(y, y);
  CHECK(show(y) == "f32[5] 0 0 1 2 3");
}
