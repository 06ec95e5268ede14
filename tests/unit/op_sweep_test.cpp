// SPDX-License-Identifier: Apache-2.0
// Every public op: gradients of first and second order against differences, layouts, precisions, and that no op is left
// out. What is checked is listed in op_sweep/cases_*.cpp.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include <doctest/doctest.h>

#include <loom/autograd/op.h>

#include "op_sweep/checks.h"
#include "op_sweep/declared.h"

using namespace loom;
using namespace loom::sweep;

namespace {

// Before anything is allocated: fresh memory is full of NaN, so that a kernel that leaves an element unwritten shows.
[[maybe_unused]] const int poisoned = setenv("LOOM_POISON", "1", 0);

template <class Check>
void for_each_case(const Check& check) {
  for (const Case& c : all_cases()) {
    std::string wrong;
    try {
      wrong = check(c);
    } catch (const std::exception& error) {
      wrong = str("throws ", error.what());
    }
    if (!wrong.empty()) FAIL_CHECK(c.name(), ": ", wrong);
  }
}

const std::pair<std::string, bool> rows[] = {
#define OP(name, cast, gradient) {#name, autograd::ops::gradient},
#include <loom/autograd/ops.def>
#define UNARY(name, ...) {#name, true},
#define UNARY_P(name, ...) {#name, true},
#define STEP(name, ...) {#name, true},
#define PREDICATE(name, ...) {#name, false},
#define BINARY(name, ...) {#name, true},
#define COMPARE(name, ...) {#name, false},
#define BITWISE(name, ...) {#name, false},
#include <loom/accelerators/elementwise.def>
};

const std::pair<std::string, autograd::Cast> classes[] = {
#define OP(name, ...) {#name, autograd::ops::name.cast},
#include <loom/autograd/ops.def>
#define UNARY(name, ...) {#name, autograd::ops::name.cast},
#define UNARY_P(name, ...) {#name, autograd::ops::name.cast},
#define STEP(name, ...) {#name, autograd::ops::name.cast},
#define BINARY(name, ...) {#name, autograd::ops::name.cast},
#include <loom/accelerators/elementwise.def>
};

std::set<std::string> covered() {
  std::set<std::string> names;
  for (const Case& c : all_cases()) names.insert(c.op);
  return names;
}

}  // namespace

TEST_CASE("memory is poisoned in this test") {
  const Tensor x = empty({1000}, f32);
  CHECK(std::isnan(x.span<float>()[999]));
}

TEST_CASE("every op of the tables has a case") {
  const auto names = covered();
  for (const auto& [name, gradient] : rows) CHECK_MESSAGE(names.contains(name), "no case for op ", name);
}

TEST_CASE("an op that is declared to have a gradient has one, and no other") {
  std::set<std::string> differentiable;
  for (const Case& c : all_cases())
    if (c.gradient) differentiable.insert(c.op);
  for (const auto& [name, gradient] : rows)
    CHECK_MESSAGE(differentiable.contains(name) == gradient, name, gradient ? " has no" : " has a",
                  " differentiable case");
}

TEST_CASE("every function of autograd/ops/*.h has a case") {
  const std::set<std::string> names = covered();
  const auto declared = declared_functions();
  for (const auto& [function, file] : declared) CHECK_MESSAGE(names.contains(function), function, " of ", file);
  CHECK(declared.size() > 100);
}

namespace {

using Reasons = std::map<std::string, std::string>;

const Reasons without_empty = {};

const std::string lines = "works along a dimension";
const std::string matrices = "takes vectors, matrices or batches of them";
const std::string images = "takes [N, C, ..] or [C, ..]";

const Reasons without_scalar = {
    {"unflatten", lines},
    {"slice", lines},
    {"narrow", lines},
    {"select", lines},
    {"split", lines},
    {"chunk", lines},
    {"unbind", lines},
    {"cat", lines},
    {"concat", lines},
    {"roll", lines},
    {"repeat_interleave", lines},
    {"glu", "halves a dimension"},
    {"take_along_dim", lines},
    {"diagonal", matrices},
    {"triu", matrices},
    {"tril", matrices},
    {"matmul", matrices},
    {"mm", matrices},
    {"bmm", matrices},
    {"dot", matrices},
    {"outer", matrices},
    {"linear", matrices},
    {"scaled_dot_product_attention", matrices},
    {"recurrent_steps", "takes [T, N, ..]"},
    {"layer_norm", "normalises at least 1 dimension"},
    {"rms_norm", "normalises at least 1 dimension"},
    {"group_norm", images},
    {"batch_norm", images},
    {"batch_norm_relu", images},
    {"gelu_mlp", matrices},
    {"add_layer_norm", "normalises at least 1 dimension"},
    {"add_rms_norm", "normalises at least 1 dimension"},
    {"conv1d", images},
    {"conv2d", images},
    {"conv_transpose2d", images},
    {"conv2d_grad_input", images},
    {"conv2d_grad_weight", images},
    {"max_pool1d", images},
    {"max_pool2d", images},
    {"max_pool2d_with_indices", images},
    {"avg_pool1d", images},
    {"avg_pool2d", images},
    {"avg_pool2d_grad", images},
    {"adaptive_avg_pool2d", images},
};

// Every op but those with a reason has a case with such an input; a reason that no longer holds goes.
void check_inputs_of_every_op(const char* kind, const Reasons& without, const std::function<bool(const Tensor&)>& is) {
  std::set<std::string> have;
  for (const Case& c : all_cases())
    if (std::ranges::any_of(c.draw(), is)) have.insert(c.op);
  for (const std::string& op : covered())
    CHECK_MESSAGE(have.contains(op) != without.contains(op), op, have.contains(op) ? " has" : " lacks", " a case with ",
                  kind, " input");
  for (const auto& [op, reason] : without) CHECK_MESSAGE(covered().contains(op), op, " is no op");
}

}  // namespace

TEST_CASE("every op has a case with an empty input, or a reason why not") {
  check_inputs_of_every_op("an empty", without_empty, [](const Tensor& x) { return x.numel() == 0; });
}

TEST_CASE("every op has a case with a 0-dimensional input, or a reason why not") {
  check_inputs_of_every_op("a 0-dimensional", without_scalar, [](const Tensor& x) { return x.dim() == 0; });
}

TEST_CASE("gradients agree with central differences") {
  for_each_case([](const Case& c) { return c.gradient ? check_gradient(c) : check_no_gradient(c); });
}

TEST_CASE("second gradients agree with central differences of gradients") {
  for_each_case([](const Case& c) { return c.gradient && c.first_order_only.empty() ? check_second_order(c) : ""; });
}

TEST_CASE("strided, offset and repeated inputs give what contiguous ones give") { for_each_case(check_layouts); }

TEST_CASE("low precision agrees with f64") {
  for_each_case([](const Case& c) {
    return c.f64_only.empty() ? check_precision(c, f32) + check_precision(c, f16) + check_precision(c, bf16) : "";
  });
}

namespace {

using autograd::Cast;

// What an op's row makes of inputs under autocast to bf16; nothing for functions without a row.
std::optional<DType> dtype_under_autocast(const std::string& op, DType given) {
  for (const auto& [name, cast] : classes) {
    if (name != op || op == "cast") continue;
    return cast == Cast::low ? bf16 : cast == Cast::f32 ? f32 : given;
  }
  return {};
}

bool is_unsafe(const std::string& op) {
  return std::ranges::any_of(classes, [&](const auto& row) { return row.first == op && row.second == Cast::unsafe; });
}

}  // namespace

TEST_CASE("under autocast results and gradients have the dtype that the op's row asks for, and the values") {
  for (const DType given : {f32, bf16})
    for_each_case([&](const Case& c) {
      const bool checked = c.gradient && c.f64_only.empty() && !is_unsafe(c.op);
      return checked ? check_autocast(c, given, dtype_under_autocast(c.op, given)) : "";
    });
}

TEST_CASE("inputs are not written to") { for_each_case(check_inputs_kept); }
