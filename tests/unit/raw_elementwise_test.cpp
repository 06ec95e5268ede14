// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include <loom/tensor/context.h>

#include "tensor_test.h"

using namespace tensor_test;

namespace {

Tensor add(const Tensor& a, const Tensor& b) { return raw::binary(Binary::add, a, b); }

}  // namespace

TEST_CASE("elementwise: unary on any layout") {
  const Tensor x = counting({2, 3});
  CHECK(show(raw::unary(Unary::neg, x)) == "f32[2, 3] -0 -1 -2 -3 -4 -5");
  const Tensor t = raw::unary(Unary::square, raw::transpose(x, 0, 1));
  CHECK(show(t) == "f32[3, 2] 0 9 1 16 4 25");
  CHECK(t.is_contiguous());
  CHECK(show(raw::unary(Unary::abs, raw::expand(full({1}, -2), {3}))) == "f32[3] 2 2 2");
  CHECK(show(raw::unary(Unary::relu, full({}, -2))) == "f32[] 0");
  CHECK(show(raw::unary(Unary::exp, zeros({0, 2}))) == "f32[0, 2]");
  CHECK(show(raw::unary(Unary::leaky_relu, tensor({-2.0, 2.0}), 0.5, 0)) == "f32[2] -1 2");
}

TEST_CASE("elementwise: what unary ops make of integers and booleans") {
  const Tensor x = tensor({-4, 9}), b = tensor({true, false});
  CHECK(show(raw::unary(Unary::sqrt, tensor({4, 9}, i32))) == "f32[2] 2 3");
  CHECK(show(raw::unary(Unary::exp, raw::cast(b, u8))).starts_with("f32[2]"));
  CHECK(show(raw::unary(Unary::reciprocal, b)) == "f32[2] 1 inf");
  CHECK(show(raw::unary(Unary::neg, x)) == "i64[2] 4 -9");
  CHECK(show(raw::unary(Unary::relu, x)) == "i64[2] 0 9");
  CHECK(show(raw::unary(Unary::floor, x)) == "i64[2] -4 9");
  CHECK(show(raw::unary(Unary::square, b)) == "i64[2] 1 0");
  CHECK(show(raw::unary(Unary::sign, b)) == "boolean[2] 1 0");
  CHECK(show(raw::unary(Unary::isnan, x)) == "boolean[2] 0 0");
  CHECK(show(raw::unary(Unary::logical_not, b)) == "boolean[2] 0 1");
  CHECK(raw::unary(Unary::floor, full({1}, 9007199254740992, i64)).item<int64_t>() == 9007199254740992);
  for (const Unary op : {Unary::neg, Unary::abs, Unary::relu, Unary::floor})
    CHECK(
        error_of([&] { raw::unary(op, b); }) ==
        std::string(name_of(op)) +
            ": not defined for boolean tensors; use logical_not for the inverse of a mask, or convert with .to(dtype)");
}

TEST_CASE("elementwise: bounds of integers") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const Tensor x = tensor({-5, 5, 300});
  CHECK(show(raw::unary(Unary::clamp, x, 0, 6)) == "i64[3] 0 5 6");
  CHECK(show(raw::unary(Unary::clamp, x, -infinity, infinity)) == "i64[3] -5 5 300");
  CHECK(show(raw::unary(Unary::clamp, x, 0.5, infinity)) == "f32[3] 0.5 5 300");
  CHECK(show(raw::unary(Unary::clamp, tensor({3, 200}, u8), -1, 1e9)) == "u8[2] 3 200");
  CHECK(show(raw::unary(Unary::clamp, x, 6, 0)) == "i64[3] 0 0 0");  // the upper bound wins
  CHECK(show(raw::unary(Unary::clamp, tensor({-5.0, 3.0}), 6, 0)) == "f32[2] 0 0");
}

TEST_CASE("elementwise: powers that are computed otherwise") {
  const Tensor x = tensor({-2.0, 0.0, 4.0}, f64);
  CHECK(show(raw::unary(Unary::pow_scalar, x, 1, 0)) == "f64[3] -2 0 4");
  CHECK(show(raw::unary(Unary::pow_scalar, x, 2, 0)) == "f64[3] 4 0 16");
  CHECK(show(raw::unary(Unary::pow_scalar, x, 3, 0)) == "f64[3] -8 0 64");
  CHECK(show(raw::unary(Unary::pow_scalar, x, -1, 0)) == "f64[3] -0.5 inf 0.25");
  CHECK(show(raw::unary(Unary::pow_scalar, x[2], 0.5, 0)) == "f64[] 2");
  CHECK(show(raw::unary(Unary::pow_scalar, x[2], -0.5, 0)) == "f64[] 0.5");
  CHECK(show(raw::unary(Unary::pow_scalar, tensor({-2, 3}), 1, 0)) == "f32[2] -2 3");
  CHECK(show(raw::unary(Unary::pow_scalar, tensor({-2, 3}), 2, 0)) == "f32[2] 4 9");
}

TEST_CASE("elementwise: division with a rest") {
  for (const Binary op : {Binary::floor_divide, Binary::remainder, Binary::fmod}) {
    const std::string text = std::string(name_of(op)) + ": division of integers by zero";
    CHECK(error_of([&] { raw::binary(op, tensor({1, 2}), tensor({1, 0})); }) == text);
    CHECK(error_of([&] { raw::binary_into(op, tensor({1, 2}, i32), int64_t{0}); }) == text);
    CHECK(show(raw::binary(op, zeros({0}, i64), int64_t{1})) == "i64[0]");
  }
  // torch.floor_divide
  const Tensor a = tensor({1.0, -1.0, 6.0, -7.0, 1.0, -5.0}, f64);
  const Tensor b = tensor({0.1, 0.1, -4.0, 2.0, 0.0, std::numeric_limits<double>::infinity()}, f64);
  CHECK(show(raw::binary(Binary::floor_divide, a, b)) == "f64[6] 9 -10 -2 -4 inf -1");
}

TEST_CASE("elementwise: NaN passes where PyTorch lets it pass") {
  const Tensor nan = tensor({std::numeric_limits<double>::quiet_NaN()});
  for (const DType t : {f32, f64, bf16})
    for (const Unary op :
         {Unary::relu, Unary::relu6, Unary::clamp, Unary::hardtanh, Unary::threshold, Unary::softshrink,
          Unary::hardshrink, Unary::leaky_relu, Unary::elu, Unary::hardswish, Unary::hardsigmoid}) {
      CAPTURE(name_of(op));
      CHECK(raw::unary(Unary::isnan, raw::unary(op, raw::cast(nan, t), 0.25, 0.5)).item<bool>());
    }
  CHECK(raw::unary(Unary::isnan, raw::binary(Binary::xlogy, 0.0, nan)).item<bool>());
}

TEST_CASE("elementwise: binary broadcasts and promotes") {
  const Tensor x = counting({2, 3});
  CHECK(show(add(x, tensor({10.0, 20.0, 30.0}))) == "f32[2, 3] 10 21 32 13 24 35");
  CHECK(show(add(tensor({{1}, {2}}), tensor({10, 20}))) == "i64[2, 2] 11 21 12 22");
  CHECK(show(add(x, 1)) == "f32[2, 3] 1 2 3 4 5 6");
  CHECK(show(raw::binary(Binary::sub, 1.0, tensor({1, 2}))) == "f32[2] 0 -1");
  CHECK(show(add(raw::transpose(x, 0, 1), raw::transpose(x, 0, 1))) == "f32[3, 2] 0 6 2 8 4 10");
  CHECK(show(add(zeros({0, 3}), zeros({1, 3}))) == "f32[0, 3]");
  CHECK(show(add(full({}, 1, f64), full({}, 2, f32))) == "f64[] 3");
  CHECK(show(add(tensor({1, 2}, f16), tensor({0.5}, bf16))) == "f32[2] 1.5 2.5");
  CHECK(show(add(2, 0.5)) == "f32[] 2.5");
  CHECK(error_of([&] { add(x, zeros({2, 4})); }) == "add: shapes [2, 3] and [2, 4] do not broadcast (dimension 1)");
}

TEST_CASE("elementwise: binary on integers") {
  const Tensor a = tensor({7, -7}), b = tensor({2, 2}, i32);
  CHECK(show(raw::binary(Binary::div, a, b)) == "f32[2] 3.5 -3.5");
  CHECK(show(raw::binary(Binary::floor_divide, a, b)) == "i64[2] 3 -4");
  CHECK(show(raw::binary(Binary::remainder, a, b)) == "i64[2] 1 1");
  CHECK(show(raw::binary(Binary::fmod, a, b)) == "i64[2] 1 -1");
  CHECK(show(raw::binary(Binary::pow, a, b)) == "i64[2] 49 49");
  CHECK(show(raw::binary(Binary::pow, a, 2)) == "i64[2] 49 49");
  CHECK(show(raw::binary(Binary::pow, b, -1.0)) == "f32[2] 0.5 0.5");
  CHECK(show(raw::binary(Binary::pow, tensor({1, 2}), tensor({-1, -1}))) == "i64[2] 1 0");
  CHECK(error_of([&] { raw::binary(Binary::pow, a, -1); }) ==
        "pow: integers to negative integer powers are not allowed; convert the base with .to(f32)");
}

TEST_CASE("elementwise: binary on booleans") {
  const Tensor a = tensor({true, true, false, false}), b = tensor({true, false, true, false});
  CHECK(show(add(a, b)) == "boolean[4] 1 1 1 0");
  CHECK(show(raw::binary(Binary::mul, a, b)) == "boolean[4] 1 0 0 0");
  CHECK(show(raw::binary(Binary::maximum, a, b)) == "boolean[4] 1 1 1 0");
  CHECK(show(raw::binary(Binary::minimum, a, b)) == "boolean[4] 1 0 0 0");
  CHECK(show(raw::binary(Binary::bitwise_xor, a, b)) == "boolean[4] 0 1 1 0");
  CHECK(show(raw::binary(Binary::lt, a, b)) == "boolean[4] 0 0 1 0");
  CHECK(show(add(a, 1)) == "i64[4] 2 2 1 1");
  CHECK(show(raw::binary(Binary::mul, a, 0.5)) == "f32[4] 0.5 0.5 0 0");
  CHECK(show(raw::binary(Binary::div, a, tensor({true}))) == "f32[4] 1 1 0 0");
  const std::string text =
      "sub: not defined for boolean tensors; use logical_xor, or logical_not for the inverse of a mask";
  CHECK(error_of([&] { raw::binary(Binary::sub, a, b); }) == text);
  CHECK(error_of([&] { raw::binary(Binary::sub, tensor({1}), b); }) == text);
  CHECK(error_of([&] { raw::binary(Binary::pow, a, b); }) ==
        "pow: not defined for boolean tensors; convert one with .to(dtype)");
}

TEST_CASE("elementwise: comparisons promote, bitwise ops want integers") {
  CHECK(show(raw::binary(Binary::lt, tensor({1, 2}), tensor({1.5}))) == "boolean[2] 1 0");
  CHECK(show(raw::binary(Binary::eq, tensor({1, 0}), tensor({true, true}))) == "boolean[2] 1 0");
  CHECK(show(raw::binary(Binary::logical_and, tensor({0.5, 0.0}), 2)) == "boolean[2] 1 0");
  CHECK(show(raw::binary(Binary::bitwise_and, tensor({6, 5}, u8), tensor({3}))) == "i64[2] 2 1");
  CHECK(error_of([] { raw::binary(Binary::bitwise_or, tensor({1}), tensor({1.0})); }) ==
        "bitwise_or: expects integral or boolean dtypes, got i64 and f32");
}

TEST_CASE("elementwise: where") {
  const Tensor mask = tensor({{true}, {false}});
  CHECK(show(raw::where(mask, tensor({1, 2}), 0.5)) == "f32[2, 2] 1 2 0.5 0.5");
  CHECK(show(raw::where(full({}, 1, boolean), tensor({1, 2}, f64), zeros({2}))) == "f64[2] 1 2");
  CHECK(show(raw::where(zeros({0}, boolean), 1, 2)) == "i64[0]");
  CHECK(error_of([&] { raw::where(tensor({1}), 1, 2); }) == "where: condition must be boolean, got i64");
  CHECK(error_of([&] { raw::where(mask, zeros({3}), zeros({2})); }) ==
        "where: shapes [3] and [2] do not broadcast (dimension 0)");
}

TEST_CASE("elementwise: in place") {
  const Tensor x = counting({2, 2});
  const uint64_t before = x.version();
  raw::binary_into(Binary::add, x, tensor({10, 20}));
  CHECK(show(x) == "f32[2, 2] 10 21 12 23");
  raw::unary_into(Unary::neg, raw::select(x, 1, 0));
  CHECK(show(x) == "f32[2, 2] -10 21 -12 23");
  raw::binary_into(Binary::mul, x, x);
  CHECK(show(x) == "f32[2, 2] 100 441 144 529");
  CHECK(x.version() == before + 3);
  const Tensor i = tensor({1, 2});
  raw::binary_into(Binary::mul, i, true);
  raw::binary_into(Binary::add, i, tensor({1}, u8));
  CHECK(show(i) == "i64[2] 2 3");
  const Tensor half = ones({2}, f16);
  raw::binary_into(Binary::add, half, tensor({0.5}, f64));
  CHECK(show(half) == "f16[2] 1.5 1.5");
  raw::binary_into(Binary::gt, half, 1);
  CHECK(show(half) == "f16[2] 1 1");
}

TEST_CASE("elementwise: few elements, dense and alike, as what lies otherwise") {
  for (const DType dtype : {f64, f32, f16})
    for (const int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 33, 63, 2047, 2048, 2049}) {
      const Tensor x = raw::cast(raw::binary(Binary::div, counting({n}), 7.0), dtype);
      const Tensor y = raw::binary(Binary::add, x, 0.5);
      const Tensor wide = zeros({n, 2}, dtype), strided = raw::select(wide, 1, 1);
      raw::copy_into(strided, x);
      const auto name = str(dtype, ' ', n);
      for (const Binary op :
           {Binary::add, Binary::mul, Binary::div, Binary::pow, Binary::maximum, Binary::fmod, Binary::lt})
        CHECK_MESSAGE(show(raw::binary(op, x, y)) == show(raw::binary(op, strided, y)), name, ' ', name_of(op));
      for (const Unary op : {Unary::exp, Unary::relu, Unary::sqrt, Unary::isnan})
        CHECK_MESSAGE(show(raw::unary(op, x)) == show(raw::unary(op, strided)), name, ' ', name_of(op));
      CHECK(show(raw::unary(Unary::clamp, x, 0.2, 1)) == show(raw::unary(Unary::clamp, strided, 0.2, 1)));
      const Tensor expected = raw::binary(Binary::mul, strided, y);
      raw::binary_into(Binary::mul, x, y);
      CHECK_MESSAGE(show(x) == show(expected), name);
      CHECK(x.version() == 1);
    }
  const Tensor column = raw::transpose(counting({1, 3}), 0, 1);
  CHECK(raw::binary(Binary::add, column, column).strides() == Dims{1, 1});
  CHECK(raw::binary(Binary::add, zeros({2, 0}), zeros({2, 0})).shape() == Dims{2, 0});
  CHECK(show(raw::binary(Binary::add, full({}, 1), full({}, 2))) == "f32[] 3");
  CHECK(raw::binary(Binary::add, 1.0, 2.0).dtype() == f32);  // numbers both
}

TEST_CASE("elementwise: in place on memory that is read, too") {
  const Tensor x = counting({3, 3});
  raw::binary_into(Binary::add, x, raw::transpose(x, 0, 1));
  CHECK(show(x) == "f32[3, 3] 0 4 8 4 8 12 8 12 16");
  const Tensor y = counting({4});
  raw::binary_into(Binary::add, raw::slice(y, 0, 1, 4, 1), raw::slice(y, 0, 0, 3, 1));
  CHECK(show(y) == "f32[4] 0 1 3 5");
  const Tensor z = ones({3});
  raw::binary_into(Binary::add, z, raw::slice(z, 0, 0, 1, 1));
  CHECK(show(z) == "f32[3] 2 2 2");
}

TEST_CASE("elementwise: what cannot be in place") {
  const Tensor i = tensor({1, 2}), b = tensor({true, false});
  CHECK(error_of([&] { raw::binary_into(Binary::add, i, 1.5); }) == "add_: the result f32 cannot be stored in i64");
  CHECK(error_of([&] { raw::binary_into(Binary::div, i, i); }) == "div_: the result f32 cannot be stored in i64");
  CHECK(error_of([&] { raw::binary_into(Binary::add, b, i); }) == "add_: the result i64 cannot be stored in boolean");
  CHECK(error_of([&] { raw::unary_into(Unary::exp, i); }) == "exp_: the result f32 cannot be stored in i64");
  CHECK(error_of([&] {
          raw::binary_into(Binary::add, zeros({2}), zeros({3, 2}));
        }) == "add_: the result of shape [3, 2] does not fit the tensor of shape [2]");
  CHECK(error_of([&] { raw::binary_into(Binary::add, zeros({2}), zeros({3})); }) ==
        "add_: shapes [2] and [3] do not broadcast (dimension 0)");
  CHECK(error_of([&] { raw::unary_into(Unary::neg, raw::expand(zeros({1}), {2})); }) ==
        "neg_: the tensor is expanded (stride 0) at dimension 0, so several elements share one place; clone it first");
  CHECK(i.version() == 0);
}
