// SPDX-License-Identifier: Apache-2.0
// Every row of accelerators/elementwise.def against PyTorch, gradients too: inside the interval that the row names, at
// infinities, NaN, zeros of both signs, subnormal and large numbers, and on integers.
#include <algorithm>
#include <functional>

#include "golden.h"
#include "kernel_test.h"

namespace {

using namespace loom;

struct Row {
  std::string name;
  std::function<Tensor(const std::vector<Tensor>&, double, double)> call;
};

const Row rows[] = {
#define UNARY(name, ...) {#name, [](const auto& x, double, double) { return loom::name(x[0]); }},
#define UNARY_P(name, ...) {#name, [](const auto& x, double p, double q) { return loom::name(x[0], p, q); }},
#define STEP(name, ...) {#name, [](const auto& x, double, double) { return loom::name(x[0]); }},
#define PREDICATE(name, ...) {#name, [](const auto& x, double, double) { return loom::name(x[0]); }},
#define BINARY(name, ...) {#name, [](const auto& x, double, double) { return loom::name(x[0], x[1]); }},
#define COMPARE(name, ...) {#name, [](const auto& x, double, double) { return loom::name(x[0], x[1]); }},
#define BITWISE(name, ...) {#name, [](const auto& x, double, double) { return loom::name(x[0], x[1]); }},
#include <loom/accelerators/elementwise.def>
};

const golden::Tensors& stored() { return golden::file("elementwise"); }

// One number of a result: of which op, the value (part 0) or the gradient of argument part - 1, and where.
struct Place {
  const std::string& op;
  size_t part;
  DType argument, dtype;  // the result's
  double largest;         // |x|, where finite; at least 1
  std::vector<double> x;
};

// What PyTorch computes there is not to be followed.
bool is_excepted(const Place& at) {
  const double x = at.x[0];
  if (at.op == "softsign") return is_integral(at.argument) || (at.part == 1 && std::isinf(x));  // 1 + |x| overflows
  if (at.op == "hardswish") return at.part == 0 && std::isinf(x);                               // -inf * 0
  if (at.op == "acosh") return at.part == 1 && x < 1;  // not defined there; its formula gives numbers
  // The limit is 0, its formula gives inf - inf.
  if (at.op == "gelu_backward" || at.op == "gelu_tanh_backward") return at.part == 2 && std::isinf(at.x[1]);
  // Its loops over vectors give 0, its other ones 1.
  if (at.op == "softshrink" || at.op == "hardshrink") return at.part == 1 && std::isnan(x);
  return false;
}

// Zeros of both signs are one in gradients, and in these.
bool sign_of_zero_matters(const Place& at) {
  const auto free = {"logsigmoid", "hardswish", "softshrink", "tanhshrink"};
  return at.part == 0 && std::find(free.begin(), free.end(), at.op) == free.end();
}

double smallest_normal(DType dtype) { return dtype == f64 ? 0x1p-1022 : dtype == f16 ? 0x1p-14 : 0x1p-126; }

// A few roundings, more where the function is steep (half a step of x = 50 is 25 of exp(x)). What subtracts nearly
// equal numbers is right to the digits of these: gradients made from the result, PyTorch's f64 too.
double allowed(const Place& at, double value) {
  const bool half = item_size(at.dtype) == 2;
  const double step = kernel_test::epsilon(at.dtype), computed = half ? kernel_test::epsilon(f32) : step;
  double out = std::abs(value) * (half ? step : 8 * step) + 2 * smallest_normal(at.dtype) + at.largest * 0x1p-50;
  out += std::abs(value) * 2 * std::min(at.largest, 1000.0) * computed;
  if (at.part != 0 || at.op == "gelu" || at.op == "tanhshrink") out += 4 * at.largest * computed;
  if (at.op == "hardsigmoid") out += 1e-7 * std::abs(value);  // PyTorch's sixth is an f32
  return out;
}

bool agree(const Place& at, double got, double expected) {
  if (is_excepted(at) || (std::isnan(got) && std::isnan(expected))) return true;
  if (is_integral(at.dtype) || !std::isfinite(expected)) return got == expected;
  if (got == 0 && expected == 0) return std::signbit(got) == std::signbit(expected) || !sign_of_zero_matters(at);
  return std::abs(got - expected) <= allowed(at, expected);
}

// The arguments [arguments, n], and what PyTorch makes of them [parameters, value and gradients, n].
struct Case {
  Tensor inputs, results, cotangent;
};

// The points that the dtype holds exactly; the results were computed in f64.
Case narrowed(const Case& all, DType dtype) {
  const auto before = all.inputs.to_vector<double>(), after = all.inputs.to(dtype).to_vector<double>();
  const auto n = static_cast<size_t>(all.inputs.size(1));
  std::vector<int64_t> exact;
  for (size_t i = 0; i < n; ++i) {
    bool same = true;
    for (size_t k = i; k < before.size(); k += n) same = same && (before[k] == after[k] || std::isnan(before[k]));
    if (same) exact.push_back(static_cast<int64_t>(i));
  }
  const Tensor index = from_vector(exact, {static_cast<int64_t>(exact.size())});
  const Tensor results = index_select(all.results, 2, index);
  return {index_select(all.inputs, 1, index).to(dtype), is_floating(results.dtype()) ? results.to(dtype) : results,
          index_select(all.cotangent, 0, index).to(dtype)};
}

Case case_of(const Row& row, const Tensor& results, DType dtype) {
  const Tensor inside = stored().at(row.name + ".in");
  const int64_t arity = inside.size(0), n = results.size(2);
  if (!is_floating(dtype)) return {stored().at(str("whole.", arity, ".", dtype)).narrow(1, 0, n), results, {}};
  const Tensor inputs = cat({inside.to(f64), stored().at(str("special.", arity))}, 1);
  return narrowed({inputs, results, stored().at("cotangent").narrow(0, 0, n)}, dtype);
}

std::string text_of(const std::vector<double>& numbers) {
  std::string out;
  for (const double v : numbers) out += (out.empty() ? "" : ", ") + text::number(v);
  return out;
}

void compare(const Row& row, const Case& c, size_t part, const Tensor& got, const Tensor& expected) {
  CHECK(got.dtype() == expected.dtype());
  const auto a = got.to_vector<double>(), b = expected.to_vector<double>(), in = c.inputs.to_vector<double>();
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    Place at{row.name, part, c.inputs.dtype(), got.dtype(), 1, {}};
    for (size_t k = i; k < in.size(); k += a.size()) {
      at.x.push_back(in[k]);
      if (std::isfinite(in[k])) at.largest = std::max(at.largest, std::abs(in[k]));
    }
    if (!agree(at, a[i], b[i]))
      FAIL_CHECK(row.name, " of ", at.argument, part ? str(", gradient ", part - 1) : "", " at ", text_of(at.x),
                 ": got ", text::number(a[i]), ", expected ", text::number(b[i]));
  }
}

// With the parameters (p, q) of a set, where the row has any.
void check_set(const Row& row, const Case& c, int64_t set) {
  double p = 0, q = 0;
  if (const auto given = stored().find(row.name + ".parameters"); given != stored().end())
    p = given->second[set][0].item<double>(), q = given->second[set][1].item<double>();
  CAPTURE(p);
  CAPTURE(q);
  // In half precision gradients are rounded after each of their ops.
  const bool differentiate = c.results.size(1) > 1 && item_size(c.inputs.dtype()) > 2;
  std::vector<Tensor> x;
  for (const Tensor& each : unbind(c.inputs)) x.push_back(each.clone().requires_grad_(differentiate));
  const Tensor y = row.call(x, p, q);
  compare(row, c, 0, y, c.results[set][0]);
  if (!differentiate) return;
  y.backward(c.cotangent);
  for (size_t i = 0; i < x.size(); ++i)
    compare(row, c, i + 1, x[i].grad(), c.results[set][static_cast<int64_t>(i) + 1]);
}

}  // namespace

TEST_CASE("elementwise ops and their gradients are PyTorch's") {
  for (const Row& row : rows)
    for (const DType dtype : {f64, f32, f16, bf16, i64, i32, u8, boolean}) {
      const auto results = stored().find(str(row.name, ".", is_floating(dtype) ? f64 : dtype));
      if (results == stored().end()) continue;  // PyTorch has no such kernel
      const Case c = case_of(row, results->second, dtype);
      for (int64_t set = 0; set < c.results.size(0); ++set) check_set(row, c, set);
    }
}
