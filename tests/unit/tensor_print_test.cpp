// SPDX-License-Identifier: Apache-2.0
// The texts are what PyTorch prints, but for the names of dtypes.
#include <limits>
#include <sstream>

#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>

#include "tensor_test.h"

using namespace tensor_test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity(),
                 not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("print: whole floating numbers end in a point") {
  CHECK(to_string(tensor({{1.0, 2.0}, {3.0, 4.0}})) == "tensor([[1., 2.],\n        [3., 4.]])");
  CHECK(to_string(zeros({2})) == "tensor([0., 0.])");
  CHECK(to_string(tensor({-1.0, 100.0})) == "tensor([ -1., 100.])");
}

TEST_CASE("print: four digits, one width") {
  CHECK(to_string(tensor({3.14159, -10.5})) == "tensor([  3.1416, -10.5000])");
  CHECK(to_string(full({}, 3.14159)) == "tensor(3.1416)");
  CHECK(to_string(full({}, 7, i64)) == "tensor(7)");
}

TEST_CASE("print: scientific where the range asks for it") {
  CHECK(to_string(tensor({1.0, 1001.0})) == "tensor([1.0000e+00, 1.0010e+03])");
  CHECK(to_string(tensor({1.0, 1000.0})) == "tensor([   1., 1000.])");
  CHECK(to_string(tensor({0.00005})) == "tensor([5.0000e-05])");
  CHECK(to_string(tensor({2e8})) == "tensor([2.0000e+08])");
  CHECK(to_string(tensor({0.0, -1e-9})) == "tensor([ 0.0000e+00, -1.0000e-09])");
}

TEST_CASE("print: what is not finite") {
  CHECK(to_string(tensor({not_a_number, infinity, -infinity})) == "tensor([nan, inf, -inf])");
  CHECK(to_string(tensor({not_a_number, 1.0})) == "tensor([nan, 1.])");
  CHECK(to_string(tensor({-infinity, 0.5})) == "tensor([  -inf, 0.5000])");
  CHECK(to_string(tensor({-not_a_number})) == "tensor([nan])");
}

TEST_CASE("print: integers and booleans") {
  CHECK(to_string(tensor({1, -20, 300})) == "tensor([  1, -20, 300])");
  CHECK(to_string(tensor({true, false})) == "tensor([ True, False])");
  CHECK(to_string(tensor({std::numeric_limits<int64_t>::max()})) == "tensor([9223372036854775807])");
}

TEST_CASE("print: dtypes that do not show") {
  CHECK(to_string(ones({2}, f64)) == "tensor([1., 1.], dtype=f64)");
  CHECK(to_string(ones({}, i32)) == "tensor(1, dtype=i32)");
  CHECK(to_string(tensor({0.1}, bf16)) == "tensor([0.1001], dtype=bf16)");
  Context mine = context();
  mine.default_dtype = f64;
  const ContextGuard guard(mine);
  CHECK(to_string(ones({2}, f64)) == "tensor([1., 1.])");
  CHECK(to_string(ones({2}, f32)) == "tensor([1., 1.], dtype=f32)");
}

TEST_CASE("print: empty and undefined") {
  CHECK(to_string(zeros({0})) == "tensor([])");
  CHECK(to_string(zeros({0, 3})) == "tensor([], size=(0, 3))");
  CHECK(to_string(zeros({2, 0}, i64)) == "tensor([], size=(2, 0), dtype=i64)");
  CHECK(to_string(Tensor()) == "tensor(undefined)");
}

TEST_CASE("print: more dimensions, any strides") {
  CHECK(to_string(counting({2, 2, 2})) ==
        "tensor([[[0., 1.],\n         [2., 3.]],\n\n        [[4., 5.],\n         [6., 7.]]])");
  CHECK(to_string(raw::transpose(counting({2, 2}), 0, 1)) == "tensor([[0., 2.],\n        [1., 3.]])");
}

TEST_CASE("print: lines of 80 columns") {
  CHECK(to_string(arange(25)) ==
        "tensor([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15, 16, 17,\n"
        "        18, 19, 20, 21, 22, 23, 24])");
}

TEST_CASE("print: large tensors show their edges") {
  CHECK(to_string(counting({2001})) ==
        "tensor([0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 1.9980e+03, 1.9990e+03,\n        2.0000e+03])");
  CHECK(to_string(raw::expand(arange(2000), {2, 2000})) ==
        "tensor([[   0,    1,    2,  ..., 1997, 1998, 1999],\n        [   0,    1,    2,  ..., 1997, 1998, 1999]])");
  CHECK(to_string(raw::reshape(arange(7 * 200), {7, 200})) ==
        "tensor([[   0,    1,    2,  ...,  197,  198,  199],\n        [ 200,  201,  202,  ...,  397,  398,  399],\n"
        "        [ 400,  401,  402,  ...,  597,  598,  599],\n        ...,\n"
        "        [ 800,  801,  802,  ...,  997,  998,  999],\n        [1000, 1001, 1002,  ..., 1197, 1198, 1199],\n"
        "        [1200, 1201, 1202,  ..., 1397, 1398, 1399]])");
}

TEST_CASE("print: to a stream") {
  std::ostringstream out;
  out << tensor({1, 2});
  CHECK(out.str() == "tensor([1, 2])");
}

TEST_CASE("print: whether gradients are wanted, and what computed the tensor") {
  Tensor x = tensor({1.0, 2.0});
  x.requires_grad_();
  CHECK(to_string(x) == "tensor([1., 2.], requires_grad=True)");
  CHECK(to_string(x + 1) == "tensor([2., 3.], grad_fn=<AddBackward>)");
  CHECK(to_string(sum(x)) == "tensor(3., grad_fn=<SumBackward>)");
  CHECK(to_string(log_softmax(x * 0.0, 0)) == "tensor([-0.6931, -0.6931], grad_fn=<LogSoftmaxBackward>)");
  CHECK(to_string(x.detach()) == "tensor([1., 2.])");
  CHECK(to_string(x.to(f64)) == "tensor([1., 2.], dtype=f64, grad_fn=<CastBackward>)");
  CHECK(to_string(zeros({2, 0}).requires_grad_()) == "tensor([], size=(2, 0), requires_grad=True)");
  {
    const NoGrad off;
    CHECK(to_string(x + 1) == "tensor([2., 3.])");
    CHECK(to_string(x) == "tensor([1., 2.], requires_grad=True)");
  }
  CHECK(to_string(arange(13, f32).requires_grad_()) ==
        "tensor([ 0.,  1.,  2.,  3.,  4.,  5.,  6.,  7.,  8.,  9., 10., 11., 12.],\n       requires_grad=True)");
}
