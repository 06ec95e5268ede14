// SPDX-License-Identifier: Apache-2.0
// index_add_, scatter_, scatter_add_, masked_fill_ and index_put_ write into the tensor's own memory, whatever its
// strides, and give what the functions that return new tensors give.
#include <sstream>

#include <doctest/doctest.h>

#include <loom/accelerators/memory.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

#include "in_place.h"

using namespace loom;
using namespace in_place;

TEST_CASE("in place by index: as the functions, in every layout and dtype") {
  manual_seed(2);
  for (const DType dtype : {f64, f32, bf16, i64, u8}) {
    const Tensor x = (rand({5, 4}) * 9.0).to(dtype), source = (rand({3, 4}) * 9.0).to(dtype);
    const Tensor rows = tensor({4, 0, 4}), places = tensor({{4, 0, 2, 2}, {1, 0, 2, 3}, {4, 4, 4, 4}});
    const Tensor mask = rand({5, 1}) < 0.5;
    check_in_place(x, index_add(x, 0, rows, source), [&](const Tensor& y) { y.index_add_(0, rows, source); });
    check_in_place(x, scatter(x, 0, places, source), [&](const Tensor& y) { y.scatter_(0, places, source); });
    check_in_place(x, scatter_add(x, 0, places, source), [&](const Tensor& y) { y.scatter_add_(0, places, source); });
    check_in_place(x, masked_fill(x, mask, 3.0), [&](const Tensor& y) { y.masked_fill_(mask, 3.0); });
    for (const bool accumulate : {false, true}) {
      const std::vector<std::pair<std::vector<Index>, Tensor>> puts = {
          {{Index(rows)}, source},
          {{Index(rows)}, tensor({7}).to(dtype)},
          {{1}, source[0]},
          {{Slice{1, 3}, Slice{}}, source[0]},
          {{Slice{}, Index(tensor({-1, 0}))}, tensor({1, 2})},
          {{Index(rows), Index(tensor({1, -1, 2}))}, tensor({1, 2, 3}).to(dtype)},
          {{Index(rows), 2}, tensor({1, 2, 3}).to(dtype)},
          {{Index(squeeze(mask, 1))}, tensor({5}).to(dtype)},
          {{new_axis, Index(rows)}, source},
          {{Index(tensor({2}, i64)[0])}, source[1]},
      };
      for (const auto& [indices, values] : puts)
        check_in_place(x, index_put(x, indices, values, accumulate),
                       [&](const Tensor& y) { y.index_put_(indices, values, accumulate); });
    }
  }
}

TEST_CASE("in place by index: values and indices that lie in the tensor itself") {
  const Tensor x = arange(12, f32).reshape({3, 4});
  Tensor y = x.clone();
  y.index_add_(0, tensor({2, 1, 0}), y);
  CHECK(equal(y, index_add(x, 0, tensor({2, 1, 0}), x)));
  y = x.clone();
  y.index_put_({Index(tensor({1, 2}))}, y.narrow(0, 0, 2));
  CHECK(equal(y, index_put(x, {Index(tensor({1, 2}))}, x.narrow(0, 0, 2))));
  const Tensor positions = tensor({1, 2, 0});
  const Tensor p = positions.clone();
  p.scatter_(0, p, tensor({5, 6, 7}));
  CHECK(equal(p, scatter(positions, 0, positions, tensor({5, 6, 7}))));
  const Tensor mask = tensor({{1, 0}, {1, 1}}).to(boolean), m = mask.clone();
  m.masked_fill_(m.t(), 0);
  CHECK(equal(m, masked_fill(mask, mask.t(), 0)));
}

TEST_CASE("in place by index: what does not fit, and nothing is written") {
  const Tensor x = zeros({2, 3});
  const uint64_t version = x.version();
  CHECK(error_of([&] {
          x.index_add_(0, tensor({2}), ones({1, 3}));
        }) == "index_add_: index 2 is out of range for dimension 0 of size 2");
  CHECK(error_of([&] {
          x.index_add_(0, tensor({1}), ones({2, 3}));
        }) == "index_add_: source must have shape [1, 3], got [2, 3]");
  CHECK(error_of([&] {
          x.scatter_(0, tensor({{-1}}), ones({1, 1}));
        }) == "scatter_: index -1 is out of range for dimension 0 of size 2");
  CHECK(error_of([&] {
          x.scatter_add_(0, tensor({{0}}), ones({1, 1}, f64));
        }) == "scatter_add_: dtypes f32 and f64 differ; convert one with .to(dtype)");
  CHECK(error_of([&] {
          x.masked_fill_(zeros({2, 2, 3}, boolean), 1);
        }) == "masked_fill_: a mask of shape [2, 2, 3] does not broadcast to [2, 3]");
  CHECK(error_of([&] { x.index_put_({Index(tensor({0}))}, ones({2})); }) ==
        "index_put_: shape [2] does not expand to [1, 3] (dimension 1)");
  CHECK(error_of([&] { x.index_put_({2}, 1); }) == "index_put_: index 2 is out of range for dimension 0 of size 2");
  CHECK(error_of([&] {
          expand(zeros({1, 3}), {2, 3}).index_add_(0, tensor({1}), ones({1, 3}));
        }) ==
        "index_add_: the tensor is expanded (stride 0) at dimension 0, so several elements share one place; clone it "
        "first");
  Tensor leaf = zeros({2, 3});
  leaf.requires_grad_();
  CHECK(error_of([&] { leaf.index_put_({0}, 1); }) ==
        "index_put_: an in-place operation on (or with) a tensor that requires grad is not recorded; use the function "
        "that returns a new tensor, or wrap the call in NoGrad");
  CHECK(equal(x, zeros({2, 3})));
  CHECK(x.version() == version);
  const NoGrad off;
  leaf.index_put_({0}, 1);
  CHECK(equal(leaf[0], ones({3})));
}

TEST_CASE("in place by index: one row of many costs the row's memory, not the tensor's") {
  const Tensor x = zeros({20000, 100}), row = ones({1, 100}), at = tensor({7});
  const Tensor place = expand(reshape(at, {1, 1}), {1, 100}), cell = tensor({3});
  const int64_t bytes = x.numel() * 4;
  reset_peak_memory_stats();
  const int64_t before = memory_stats().peak_allocated;
  x.index_add_(0, at, row);
  x.scatter_(0, place, row);
  x.scatter_add_(0, place, row);
  x.index_put_({Index(at)}, row);
  x.index_put_({Index(at)}, row, true);
  x.index_put_({Index(at), Index(cell)}, tensor({2.0}, f32));
  x.index_put_({3}, 1);
  x.masked_fill_(place[0] == 0, 1);
  CHECK(memory_stats().peak_allocated - before < bytes / 8);
  CHECK(x[7].to_vector<double>()[3] == 2);
}

TEST_CASE("members that are the functions, in place and not") {
  manual_seed(3);
  const Tensor x = rand({3, 4}, f64) + 0.5, a = rand({3, 4}, f64), b = rand({4}, f64);
  CHECK(equal(x.prod(), prod(x)));
  CHECK(equal(x.prod({1}, true), prod(x, {1}, true)));
  CHECK(equal(x.norm(), norm(x)));
  CHECK(equal(x.norm(1, {0}), norm(x, 1, {0})));
  CHECK(equal(x.cumsum(1), cumsum(x, 1)));
  CHECK(equal(x.sort(0, true).second, sort(x, 0, true).second));
  const Tensor index = tensor({{0}, {3}, {1}});
  CHECK(equal(x.gather(1, index), gather(x, 1, index)));
  check_in_place(x, lerp(x, a, b), [&](const Tensor& y) { y.lerp_(a, b); });
  check_in_place(x, x + a * b * 0.5, [&](const Tensor& y) { y.addcmul_(a, b, 0.5); });
  check_in_place(x, x + a * b, [&](const Tensor& y) { y.addcmul_(a, b); });
  check_in_place(x, pow(x, b), [&](const Tensor& y) { y.pow_(b); });
  check_in_place(x, pow(x, 3), [&](const Tensor& y) { y.pow_(3); });
  CHECK(error_of([&] { x.lerp_(ones({3}), 0.5); }) == "lerp_: shapes [3] and [3, 4] do not broadcast (dimension 1)");
  CHECK(error_of([&] {
          x.addcmul_(ones({2, 3, 4}), b);
        }) == "addcmul_: the result of shape [2, 3, 4] does not fit the tensor of shape [3, 4]");
}

TEST_CASE("shapes, dtypes and devices go into streams") {
  std::ostringstream out;
  out << zeros({2, 3}).shape() << ' ' << f16 << ' ' << Device();
  CHECK(out.str() == "[2, 3] f16 cpu");
}
