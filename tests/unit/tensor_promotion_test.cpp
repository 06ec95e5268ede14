// SPDX-License-Identifier: Apache-2.0
// What golden_dtypes_test.cpp, with PyTorch's tables, does not say of promotion.
#include "tensor_test.h"

#include <loom/tensor/context.h>

using namespace tensor_test;

TEST_CASE("promotion: numbers alone") {
  CHECK(result_type(true, 2) == i64);
  CHECK(result_type(2, 2.5) == f32);
  CHECK(result_type(1.0, 2.5) == f32);
}

TEST_CASE("promotion: numbers become the default dtype") {
  Context mine = context();
  mine.default_dtype = f64;
  const ContextGuard guard(mine);
  CHECK(result_type(ones({2}, i64), 2.0) == f64);
  CHECK(result_type(ones({2}, f32), 2.0) == f32);
}

TEST_CASE("promotion: numbers keep their precision until the dtype is known") {
  CHECK(raw::binary(Binary::mul, ones({1}, f64), 0.1).item<double>() == 0.1);
  CHECK(raw::binary(Binary::mul, ones({1}, f32), 0.1).item<float>() == 0.1f);
  CHECK(raw::binary(Binary::add, zeros({1}, i64), 9007199254740993).item<int64_t>() == 9007199254740993);
}

TEST_CASE("promotion: a number that does not fit an integral dtype wraps, but is compared as it is") {
  const Tensor x = tensor({1, 2}, u8);
  CHECK(show(raw::binary(Binary::add, x, 300)) == "u8[2] 45 46");
  CHECK(show(raw::binary(Binary::add, x, -1)) == "u8[2] 0 1");
  CHECK(show(raw::binary(Binary::lt, x, 300)) == "boolean[2] 1 1");
  CHECK(show(raw::binary(Binary::gt, x, -1)) == "boolean[2] 1 1");
}
