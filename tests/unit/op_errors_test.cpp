// SPDX-License-Identifier: Apache-2.0
// The exact text of what each op says about operands that do not fit: elementwise, shape, reductions, products,
// indexing.
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "op_sweep/declared.h"
#include "op_sweep/mistakes.h"

using namespace loom;
using namespace loom::sweep;

TEST_CASE("elementwise") {
  check_all({
      {CALL(f({2, 3}) + f({2, 4})), "add: shapes [2, 3] and [2, 4] do not broadcast (dimension 1)"},
      {CALL(atan2(f({3}), f({2, 4}))), "atan2: shapes [3] and [2, 4] do not broadcast (dimension 1)"},
      {CALL(bitwise_and(f({2}), f({2}))), "bitwise_and: expects integral or boolean dtypes, got f32 and f32"},
      {CALL(where(f({2}), f({2}), f({2}))), "where: condition must be boolean, got f32"},
      {CALL(where(zeros({3}, boolean), f({2}), f({2}))), "where: shapes [3] and [2] do not broadcast (dimension 0)"},
      {CALL(where(zeros({2}, boolean), f({2}), f({3}))), "where: shapes [2] and [3] do not broadcast (dimension 0)"},
      {CALL(masked_fill(f({2}), i({2}), 1.0)), "masked_fill: the mask must be boolean, got i64"},
      {CALL(masked_fill(f({2}), zeros({2}, boolean), f({2}))),
       "masked_fill: the value must be a number or 0-dimensional, got shape [2]"},
      {CALL(masked_fill(f({2}), zeros({3}, boolean), 1.0)),
       "masked_fill: shapes [3] and [2] do not broadcast (dimension 0)"},
      {CALL(lerp(f({2}), f({3}), 0.5)), "lerp: shapes [3] and [2] do not broadcast (dimension 0)"},
      {CALL(lerp(f({2}), f({2}), f({3}))), "lerp: shapes [3] and [2] do not broadcast (dimension 0)"},
      {CALL(glu(f({2}), 1)), "glu: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(glu(f({2, 3}))), "glu: extent 3 of dimension -1 must be even"},
      {CALL(prelu(f({2, 3}), f({2}))),
       "prelu: 2 weights for an input of shape [2, 3]; expected 1 or the extent of dimension 1"},
      {CALL(neg(zeros({2}, boolean))),
       "neg: not defined for boolean tensors; use logical_not for the inverse of a mask, or convert with .to(dtype)"},
      {CALL(zeros({2}, boolean) - zeros({2}, boolean)),
       "sub: not defined for boolean tensors; use logical_xor, or logical_not for the inverse of a mask"},
      {CALL(pow(i({2}), -1)),
       "pow: integers to negative integer powers are not allowed; convert the base with .to(f32)"},
  });
}

TEST_CASE("every elementwise op of two tensors names shapes that do not broadcast") {
  const auto text = [](const char* op) {
    return str(op, ": shapes [2, 3] and [4, 1, 2] do not broadcast (dimension 2)");
  };
  check_all({
#define BINARY(name, ...) {CALL(name(f({2, 3}), f({4, 1, 2}))), text(#name)},
#define COMPARE(name, ...) BINARY(name)
#define BITWISE(name, ...) {CALL(name(i({2, 3}), i({4, 1, 2}))), text(#name)},
#include <loom/accelerators/elementwise.def>
  });
}

TEST_CASE("shape") {
  check_all({
      {CALL(reshape(f({2, 3}), {4})), "reshape: shape [4] has 4 elements, the tensor has 6"},
      {CALL(reshape(f({2, 3}), {4, -1})), "reshape: no extent in place of -1 makes shape [4, -1] hold 6 elements"},
      {CALL(reshape(f({2, 3}), {-1, -1})), "reshape: shape [-1, -1] leaves more than one extent (-1) open"},
      {CALL(transpose(f({2, 3}), 0, 2)), "transpose: dimension 2 is out of range for a tensor of rank 2"},
      {CALL(permute(f({2, 3}), {0, 0})), "permute: dimension 0 appears twice in [0, 0]"},
      {CALL(permute(f({2, 3}), {0})), "permute: [0] does not name the 2 dimensions of shape [2, 3]"},
      {CALL(expand(f({2, 3}), {2, 4})), "expand: shape [2, 3] does not expand to [2, 4] (dimension 1)"},
      {CALL(expand(f({2, 3}), {3})), "expand: shape [3] has fewer dimensions than [2, 3]"},
      {CALL(slice(f({2, 3}), 0, 0, 1, 0)), "slice: the step must be at least 1, got 0"},
      {CALL(narrow(f({2, 3}), 1, 2, 2)), "narrow: start 2 with length 2 is out of range for dimension 1 of size 3"},
      {CALL(select(f({2, 3}), 1, 3)), "select: index 3 is out of range for dimension 1 of size 3"},
      {CALL(select(f({}), 0, 0)), "select: a 0-dimensional tensor cannot be indexed"},
      {CALL(diagonal(f({2, 3}), 0, 1, 1)), "diagonal: both dimensions are 1"},
      {CALL(split(f({5}), 0)), "split: the size must be positive, got 0"},
      {CALL(split(f({5}), std::vector<int64_t>{2, 2})), "split: sizes add up to 4, dimension 0 has size 5"},
      {CALL(split(f({5}), {2})), "split: sizes add up to 2, dimension 0 has size 5"},  // not pieces of 2
      {CALL(chunk(f({5}), 0)), "chunk: the number of chunks must be positive, got 0"},
      {CALL(cat({f({2, 3}), f({2})})), "cat: tensor 1 of shape [2] differs in rank from [2, 3]"},
      {CALL(cat({f({2, 3}), f({2, 4})})),
       "cat: tensor 1 of shape [2, 4] differs from [2, 3] at dimension 1, outside of dimension 0 to join along"},
      {CALL(cat({})), "cat: no tensors were given"},
      {CALL(stack({f({2}), f({3})})), "stack: tensor 1 has shape [3], the first [2]"},
      {CALL(repeat(f({2, 3}), {2})), "repeat: 1 repeats for a tensor of rank 2"},
      {CALL(flip(f({2}), {0, 0})), "flip: dimension 0 appears twice in [0, 0]"},
      {CALL(triu(f({2}))), "triu: expects at least 2 dimensions, got shape [2]"},
      {CALL(pad(f({2}), {1})), "pad: 1 amounts for a tensor of rank 1; expected pairs, at most one a dimension"},
      {CALL(pad(f({2}), {-2, -1})), "pad: cropping 3 from dimension 0 of size 2"},
      {CALL(sum_to(f({2, 3}), {4})), "sum_to: shapes [4] and [2, 3] do not broadcast (dimension 1)"},
      {CALL(movedim(f({2}), 1, 0)), "movedim: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(squeeze(f({2}), 1)), "squeeze: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(unsqueeze(f({2}), 2)), "unsqueeze: dimension 2 is out of range for a tensor of rank 2"},
      {CALL(unbind(f({}))), "unbind: a 0-dimensional tensor cannot be taken apart"},
      {CALL(concat({f({2}), f({2, 2})})), "concat: tensor 1 of shape [2, 2] differs in rank from [2]"},
      {CALL(split(f({2}), 1, 1)), "split: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(chunk(f({2}), 1, 1)), "chunk: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(narrow(f({2}), 1, 0, 1)), "narrow: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(repeat_interleave(f({2}), -1, 0)), "repeat_interleave: a repeat of -1 is negative"},
      {CALL(roll(f({2}), 1, 1)), "roll: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(tril(f({2}))), "tril: expects at least 2 dimensions, got shape [2]"},
      {CALL(flatten(f({2, 3}), 1, 0)), "flatten: start dimension 1 comes after end dimension 0"},
      {CALL(unflatten(f({5}), 0, {2, 2})), "unflatten: shape [2, 2] has 4 elements, the tensor has 5"},
  });
}

TEST_CASE("reductions") {
  check_all({
      {CALL(sum(f({2}), {1})), "sum: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(sum(f({2, 3}), {0, -2})), "sum: dimension 0 appears twice in [0, -2]"},
      {CALL(mean(i({2}))), "mean: expects a floating dtype, got i64"},
      {CALL(amax(f({0, 2}), {0})), "amax: dimension 0 of shape [0, 2] is empty and has no max"},
      {CALL(max(f({2, 0}), 1)), "max: dimension 1 of shape [2, 0] is empty"},
      {CALL(argmax(f({0}))), "argmax: dimension 0 of shape [0] is empty"},
      {CALL(norm(f({2}), -1)), "norm: the order must not be negative, got -1"},
      {CALL(topk(f({2}), 3)), "topk: k 3 is out of range for dimension 0 of size 2"},
      {CALL(amin(f({2, 0}), {1})), "amin: dimension 1 of shape [2, 0] is empty and has no min"},
      {CALL(min(f({2, 0}), 1)), "min: dimension 1 of shape [2, 0] is empty"},
      {CALL(argmin(f({0}))), "argmin: dimension 0 of shape [0] is empty"},
      {CALL(prod(f({2}), {1})), "prod: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(var(f({2}), {1})), "var: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(var(i({2}))), "var: expects a floating dtype, got i64"},
      {CALL(loom::std(f({2}), {1})), "std: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(norm(f({2}), 2, {1})), "norm: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(logsumexp(f({2}), {1})), "logsumexp: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(all(f({2}), {1})), "all: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(any(f({2}), {1})), "any: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(cumprod(f({2}), 1)), "cumprod: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(sort(f({2}), 1)), "sort: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(argsort(f({2}), 1)), "argsort: dimension 1 is out of range for a tensor of rank 1"},
      {CALL(cumsum(f({2}), 1)), "cumsum: dimension 1 is out of range for a tensor of rank 1"},
  });
}

TEST_CASE("products") {
  check_all({
      {CALL(matmul(f({2, 3}), f({2, 3}))),
       "matmul: shapes [2, 3] and [2, 3] do not fit: the last dimension of the first (3) must equal the second-to-last "
       "of the second (2)"},
      {CALL(matmul(f({}), f({2}))), "matmul: both operands need a dimension, got shapes [] and [2]"},
      {CALL(matmul(f({2, 2, 3}), f({3, 3, 2}))), "matmul: batch: shapes [2] and [3] do not broadcast (dimension 0)"},
      {CALL(matmul(f({2, 3}), zeros({3, 2}, f64))), "matmul: dtypes f32 and f64 differ; convert one with .to(dtype)"},
      {CALL(matmul(i({2, 3}), i({3, 2}))), "matmul: expects a floating dtype, got i64"},
      {CALL(mm(f({2, 3}), f({2, 3}))),
       "mm: shapes [2, 3] and [2, 3] do not fit: the last dimension of the first (3) must equal the second-to-last of "
       "the second (2)"},
      {CALL(bmm(f({2, 2, 3}), f({1, 3, 2}))),
       "bmm: expects two batches of matrices, got shapes [2, 2, 3] and [1, 3, 2]"},
      {CALL(bmm(f({1, 2, 3}), f({1, 2, 3}))),
       "bmm: shapes [1, 2, 3] and [1, 2, 3] do not fit: the last dimension of the first (3) must equal the "
       "second-to-last of the second (2)"},
      {CALL(dot(f({2}), f({3}))),
       "dot: shapes [2] and [3] do not fit: the last dimension of the first (2) must equal the only one of the second "
       "(3)"},
      {CALL(mm(f({2, 3}), i({3, 2}))), "mm: dtypes f32 and i64 differ; convert one with .to(dtype)"},
      {CALL(bmm(f({1, 2, 3}), i({1, 3, 2}))), "bmm: dtypes f32 and i64 differ; convert one with .to(dtype)"},
      {CALL(dot(f({2}), i({2}))), "dot: dtypes f32 and i64 differ; convert one with .to(dtype)"},
      {CALL(addmm(f({3}), f({2, 3}), f({3, 2}))), "addmm: shapes [3] and [2, 2] do not broadcast (dimension 1)"},
      {CALL(addmm(f({2, 2}), f({2}), f({2, 2}))), "addmm: expects two matrices, got shapes [2] and [2, 2]"},
      {CALL(addmm(f({2, 2}), f({2, 3}), f({2, 3}))),
       "addmm: shapes [2, 3] and [2, 3] do not fit: the last dimension of the first (3) must equal the second-to-last "
       "of the second (2)"},
      {CALL(mm(f({2}), f({2, 2}))), "mm: expects two matrices, got shapes [2] and [2, 2]"},
      {CALL(bmm(f({2, 2}), f({2, 2}))), "bmm: expects two batches of matrices, got shapes [2, 2] and [2, 2]"},
      {CALL(dot(f({2}), f({2, 2}))), "dot: expects two vectors, got shapes [2] and [2, 2]"},
      {CALL(outer(f({2}), f({2, 2}))), "outer: expects two vectors, got shapes [2] and [2, 2]"},
      {CALL(linear(f({2, 3}), f({4, 2}))), "linear: the input of shape [2, 3] has 3 features, weight [4, 2] expects 2"},
      {CALL(linear(f({2, 3}), f({4, 3}), f({3}))), "linear: bias must be [4], got shape [3]"},
      {CALL(einsum("ij,jk", {f({2, 3})})), "einsum: 'ij,jk' has 2 operands, 1 were given"},
      {CALL(einsum("ij->i", {f({2})})), "einsum: term 'ij' does not fit operand 0 of shape [2]"},
      {CALL(einsum("ij,jk->ik", {f({2, 3}), f({2, 3})})),
       "einsum: shapes [2, 3] and [2, 3] do not fit: the last dimension of the first (3) must equal the second-to-last "
       "of the second (2)"},
      {CALL(einsum("ij->k", {f({2, 3})})), "einsum: output 'k' of 'ij->k' is in no operand"},
  });
}

TEST_CASE("indexing") {
  check_all({
      {CALL(index_select(f({2}), 0, f({2}))), "index_select: index must be i64, got f32"},
      {CALL(index_select(f({2}), 0, i({2, 2}))), "index_select: index must have one dimension, got shape [2, 2]"},
      {CALL(index_select(f({2}), 0, tensor({2}))), "index_select: index 2 is out of range for dimension 0 of size 2"},
      {CALL(index_select(f({}), 0, i({2}))), "index_select: a 0-dimensional tensor takes 1 index, got 2"},
      {CALL(index_add(f({2, 3}), 0, i({2}), f({3, 3}))), "index_add: source must have shape [2, 3], got [3, 3]"},
      {CALL(gather(f({2, 3}), 0, i({2}))), "gather: index of shape [2] and input of shape [2, 3] differ in rank"},
      {CALL(gather(f({2, 3}), 0, i({2, 4}))),
       "gather: index of shape [2, 4] exceeds the input of shape [2, 3] at dimension 1"},
      {CALL(gather(f({2, 3}), 0, tensor({{-1}}))), "gather: index -1 is out of range for dimension 0 of size 2"},
      {CALL(scatter(f({2, 3}), 0, i({2, 2}), f({1, 2}))),
       "scatter: index of shape [2, 2] exceeds the source of shape [1, 2] at dimension 0"},
      {CALL(scatter_add(f({2, 3}), 0, tensor({{5}}), f({1, 1}))),
       "scatter_add: index 5 is out of range for dimension 0 of size 2"},
      {CALL(scatter_add(f({2, 3}), 0, i({2}), f({2, 3}))),
       "scatter_add: index of shape [2] and input of shape [2, 3] differ in rank"},
      {CALL(take_along_dim(f({2, 3}), i({3, 2}), 0)),
       "take_along_dim: given x of shape [2, 3] and index of shape [3, 2], expected extents that broadcast at "
       "dimension "
       "1"},
      {CALL(take_along_dim(f({2, 3}), i({2}), 0)),
       "take_along_dim: given x of shape [2, 3] and index of shape [2], expected equal ranks"},
      {CALL(embedding(f({2}), f({3, 2}))), "embedding: given an index of f32, expected i64 or i32"},
      {CALL(embedding(i({2}), f({3}))), "embedding: given weight of shape [3], expected [n, d]"},
      {CALL(embedding(i({2}), f({3, 2}), 3)), "embedding: given padding_idx 3, expected less than 3"},
      {CALL(embedding(tensor({0, 3}), f({3, 2}))), "embedding: index 3 is out of range for dimension 0 of size 3"},
      {CALL(one_hot(f({2}))), "one_hot: given an index of f32, expected i64"},
      {CALL(one_hot(i({0}))), "one_hot: given an empty index, expected the number of classes with it"},
      {CALL(one_hot(tensor({3}), 2)), "one_hot: index 3 is out of range for dimension 1 of size 2"},
      {CALL(masked_select(f({2}), i({2}))), "masked_select: given a mask of i64, expected boolean"},
      {CALL(masked_select(f({2}), zeros({3}, boolean))),
       "masked_select: shapes [2] and [3] do not broadcast (dimension 0)"},
      {CALL(f({2, 3}).index({2})), "index: index 2 is out of range for dimension 0 of size 2"},
      {CALL(f({2, 3}).index({0, 0, 0})),
       "index: given indices for 3 dimensions, expected at most 2 (the tensor has shape [2, 3])"},
      {CALL(f({2, 3}).index({ellipsis, ellipsis})), "index: given 2 ellipses, expected at most one"},
      {CALL(f({2, 3}).index({Slice{}, Index(tensor({0, 3}))})),
       "index: index 3 is out of range for dimension 1 of size 3"},
      {CALL(f({2, 3}).index({Slice{}, Index(tensor({0, -4}))})),
       "index: index -4 is out of range for dimension 1 of size 3"},
      {CALL(f({2, 3}).index({Index(f({2}))})),
       "index: given a tensor of f32, expected positions (i64) or a mask (boolean)"},
      {CALL(f({2, 3}).index({Index(zeros({3}, boolean))})),
       "index: given a mask of shape [3] at dimension 0 of a tensor, expected extent 2 at the mask's dimension 0"},
      {CALL(f({4, 3}).index({Index(tensor({0, 1})), Index(tensor({0, 1, 2}))})),
       "index: shapes [2] and [3] do not broadcast (dimension 0)"},
      {CALL(index_put(f({2, 3}), {Index(tensor({0}))}, f({2}))),
       "index_put: shape [2] does not expand to [1, 3] (dimension 1)"},
      {CALL(index_put(i({2}), {Index(tensor({0}))}, f({1}))),
       "index_put: values of f32 cannot be stored in i64; convert them with .to(dtype)"},
      {CALL(i({2}).index_put_({Index(tensor({0}))}, f({1}))),
       "index_put_: values of f32 cannot be stored in i64; convert them with .to(dtype)"},
  });
}

TEST_CASE("every function of autograd/ops/*.h has an error pinned here, or none to make") {
  const std::map<std::string, std::string> cannot_fail = {
      {"clone", "takes any tensor"}, {"contiguous", "takes any tensor"}, {"nonzero", "takes any tensor"}};
  std::string texts;
  for (const char* name : {"op_errors_test.cpp", "op_errors_networks_test.cpp"}) {
    std::ostringstream text;
    text << std::ifstream(std::filesystem::path(LOOM_SOURCE "/tests/unit") / name).rdbuf();
    texts += text.str();
  }
  for (const auto& [function, file] : declared_functions()) {
    const bool pinned = texts.find('"' + function + ": ") != std::string::npos;
    CHECK_MESSAGE(pinned != cannot_fail.contains(function), function, " of ", file);
  }
}
