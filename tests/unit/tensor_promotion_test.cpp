// SPDX-License-Identifier: Apache-2.0
// The tables are torch.result_type's.
#include "tensor_test.h"

#include <loom/tensor/context.h>

using namespace tensor_test;

namespace {

constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};
using Table = DType[dtype_count][dtype_count];

constexpr Table same_class = {
    {f64, f64, f64, f64, f64, f64, f64, f64},  {f64, f32, f32, f32, f32, f32, f32, f32},
    {f64, f32, f16, f32, f16, f16, f16, f16},  {f64, f32, f32, bf16, bf16, bf16, bf16, bf16},
    {f64, f32, f16, bf16, i64, i64, i64, i64}, {f64, f32, f16, bf16, i64, i32, i32, i32},
    {f64, f32, f16, bf16, i64, i32, u8, u8},   {f64, f32, f16, bf16, i64, i32, u8, boolean},
};

// Rows: a tensor with dimensions; columns: one without.
constexpr Table with_scalar = {
    {f64, f64, f64, f64, f64, f64, f64, f64},  {f32, f32, f32, f32, f32, f32, f32, f32},
    {f16, f16, f16, f16, f16, f16, f16, f16},  {bf16, bf16, bf16, bf16, bf16, bf16, bf16, bf16},
    {f64, f32, f16, bf16, i64, i64, i64, i64}, {f64, f32, f16, bf16, i32, i32, i32, i32},
    {f64, f32, f16, bf16, u8, u8, u8, u8},     {f64, f32, f16, bf16, i64, i32, u8, boolean},
};

constexpr DType with_float[] = {f64, f32, f16, bf16, f32, f32, f32, f32};
constexpr DType with_int[] = {f64, f32, f16, bf16, i64, i32, u8, i64};
constexpr DType with_bool[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};

void check_table(const Table& expected, const Dims& shape_a, const Dims& shape_b) {
  for (int i = 0; i < dtype_count; ++i)
    for (int j = 0; j < dtype_count; ++j) {
      const Tensor a = ones(shape_a, dtypes[i]), b = ones(shape_b, dtypes[j]);
      CAPTURE(to_string(dtypes[i]));
      CAPTURE(to_string(dtypes[j]));
      CHECK(result_type(a, b) == expected[i][j]);
      CHECK(result_type(b, a) == expected[i][j]);
      CHECK(raw::binary(Binary::mul, a, b).dtype() == expected[i][j]);
    }
}

}  // namespace

TEST_CASE("promotion: two tensors with dimensions") { check_table(same_class, {2}, {2}); }
TEST_CASE("promotion: two tensors without") { check_table(same_class, {}, {}); }
TEST_CASE("promotion: with dimensions and without") { check_table(with_scalar, {2}, {}); }

TEST_CASE("promotion: tensors and numbers") {
  for (int i = 0; i < dtype_count; ++i)
    for (const Dims& shape : {Dims{2}, Dims{}}) {
      const Tensor x = ones(shape, dtypes[i]);
      CAPTURE(to_string(dtypes[i]));
      CHECK(result_type(x, 1.5) == with_float[i]);
      CHECK(result_type(1.5f, x) == with_float[i]);
      CHECK(result_type(x, 2) == with_int[i]);
      CHECK(result_type(2L, x) == with_int[i]);
      CHECK(result_type(x, true) == with_bool[i]);
    }
}

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
