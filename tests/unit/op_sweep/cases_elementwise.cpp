// SPDX-License-Identifier: Apache-2.0
// Elementwise ops: generated from the rows of accelerators/elementwise.def, with the parameters that have kinks or
// limits added by hand.
#include "case.h"

namespace loom::sweep {

namespace {

using UnaryCall = std::function<Tensor(const Tensor&)>;
using BinaryCall = std::function<Tensor(const Tensor&, const Tensor&)>;

void add_unary(Cases& cases, const char* op, const std::string& what, double low, double high, const UnaryCall& call) {
  const auto f = [call](In x) { return call(x[0]); };
  cases.add(op, what, {real({3, 5}, low, high)}, f);
  if (!what.empty()) return;
  cases.add(op, "scalar", {real({}, low, high)}, f);
  cases.add(op, "empty", {real({2, 0, 3}, low, high)}, f);
  cases.add(op, "37 elements", {real({37}, low, high)}, f);  // whole vectors and a rest
}

void add_predicate(Cases& cases, const char* op, const UnaryCall& call) {
  const auto f = [call](In x) { return call(x[0]); };
  cases.add(op, "", {whole({4, 5}, -1, 2)}, f).constant_result();
  cases.add(op, "empty", {whole({0}, -1, 2)}, f).constant_result();
  cases.add(op, "scalar", {whole({}, -1, 2)}, f).constant_result();
  const double inf = std::numeric_limits<double>::infinity();
  cases.add(op, "special values", {exactly(tensor({0.0, -0.0, inf, -inf, std::nan(""), 1.0}, f64))}, f)
      .constant_result();
}

// Shapes that broadcast in each way.
struct Shapes {
  const char* what;
  Dims a, b;
};
const Shapes broadcasts[] = {{"", {3, 4}, {3, 4}},         {"last dimension", {3, 4}, {4}},
                             {"both", {3, 1}, {1, 4}},     {"scalar left", {}, {2, 3}},
                             {"scalar right", {2, 3}, {}}, {"more dimensions", {2, 1, 3}, {2, 1}},
                             {"empty", {0, 4}, {4}},       {"scalars", {}, {}}};

void add_binary(Cases& cases, const char* op, double low, double high, const BinaryCall& call) {
  for (const Shapes& s : broadcasts)
    cases.add(op, s.what, {real(s.a, low, high), real(s.b, low, high)}, [call](In x) { return call(x[0], x[1]); });
}

// Whole numbers from a few, so that all outcomes occur.
void add_whole(Cases& cases, const char* op, int64_t low, int64_t high, bool integral, const BinaryCall& call) {
  for (const Shapes& s : broadcasts) {
    const auto f = [call](In x) { return call(x[0], x[1]); };
    if (!integral)
      cases.add(op, s.what, {whole(s.a, low, high), whole(s.b, low, high)}, f).constant_result();
    else
      cases.add(op, s.what, {integers(s.a, low, high), integers(s.b, low, high)}, f).constant_result();
  }
}

void add_parameters(Cases& cases) {
  const auto add = [&](const char* op, const char* what, double low, double high, const UnaryCall& call) {
    add_unary(cases, op, what, low, high, call);
  };
  add("clamp", "both ends", -2, 2, [](const Tensor& x) { return clamp(x, -0.7, 1.1); });
  add("clamp", "low end", -2, 2, [](const Tensor& x) { return clamp(x, 0.3); });
  add("hardtanh", "ends", -2, 2, [](const Tensor& x) { return hardtanh(x, -0.5, 1.5); });
  add("leaky_relu", "slope", -2, 2, [](const Tensor& x) { return leaky_relu(x, 0.3); });
  add("elu", "alpha", -2, 2, [](const Tensor& x) { return elu(x, 0.7); });
  add("celu", "alpha", -2, 2, [](const Tensor& x) { return celu(x, 1.7); });
  add("softplus", "beta", -3, 3, [](const Tensor& x) { return softplus(x, 2.0); });
  add("softplus", "threshold", -3, 3, [](const Tensor& x) { return softplus(x, 2.0, 3.0); });
  add("softshrink", "lambda", -2, 2, [](const Tensor& x) { return softshrink(x, 0.8); });
  add("hardshrink", "lambda", -2, 2, [](const Tensor& x) { return hardshrink(x, 0.8); });
  add("threshold", "value", -2, 2, [](const Tensor& x) { return threshold(x, 0.2, 5); });
  add("pow_scalar", "cube", -2, 2, [](const Tensor& x) { return pow_scalar(x, 3); });
  add("pow_scalar", "root", 0.3, 2, [](const Tensor& x) { return pow_scalar(x, 0.5); });
  add("pow_scalar", "negative", 0.3, 2, [](const Tensor& x) { return pow_scalar(x, -1.5); });
  add("pow_scalar", "zero", 0.3, 2, [](const Tensor& x) { return pow_scalar(x, 0); });
  add("hardswish", "wide", -5, 5, [](const Tensor& x) { return hardswish(x); });
  add("neg", "operator", -2, 2, [](const Tensor& x) { return -x; });
}

}  // namespace

void add_unary_cases(Cases& cases) {
#define UNARY(name, kind, f, derivative, keeps, lo, hi, cast) \
  add_unary(cases, #name, "", lo, hi, [](const Tensor& x) { return loom::name(x); });
#define UNARY_P(name, p, q, kind, f, derivative, keeps, lo, hi, cast) \
  add_unary(cases, #name, "", lo, hi, [](const Tensor& x) { return loom::name(x); });
#define STEP(name, f, lo, hi) add_unary(cases, #name, "", lo, hi, [](const Tensor& x) { return loom::name(x); });
#define PREDICATE(name, f) add_predicate(cases, #name, [](const Tensor& x) { return loom::name(x); });
#include <loom/accelerators/elementwise.def>
  add_parameters(cases);
  for (Case& c : cases.all)
    if (c.op == "tanhshrink") c.roundings(64);  // what two near numbers leave
}

void add_binary_cases(Cases& cases) {
#define BINARY(name, kind, f, da, db, keeps, lo, hi, cast) \
  add_binary(cases, #name, lo, hi, [](const Tensor& a, const Tensor& b) { return loom::name(a, b); });
#define COMPARE(name, f) \
  add_whole(cases, #name, -1, 2, false, [](const Tensor& a, const Tensor& b) { return loom::name(a, b); });
#define BITWISE(name, f) \
  add_whole(cases, #name, -9, 10, true, [](const Tensor& a, const Tensor& b) { return loom::name(a, b); });
#include <loom/accelerators/elementwise.def>
  cases.add("add", "same tensor twice", {real({3, 4})}, [](In x) { return x[0] + x[0]; });
  cases.add("mul", "same tensor twice", {real({3, 4})}, [](In x) { return x[0] * x[0]; });
  cases.add("pow", "integral exponent", {real({3, 4}, -2, 2)}, [](In x) { return pow(x[0], 3.0); });
  cases.add("remainder", "negative divisor", {real({3, 4}, 0.4, 2)}, [](In x) { return remainder(x[0], -0.7); });
  cases.add("fmod", "negative dividend", {real({3, 4}, -2, -0.4)}, [](In x) { return fmod(x[0], 0.7); });
  cases.add("xlogy", "zeros", {real({3}, 0.5, 2)}, [](In x) { return xlogy(0.0, x[0]); });
  cases.add("where", "", {mask({3, 4}), real({3, 4}), real({3, 4})}, [](In x) { return where(x[0], x[1], x[2]); });
  cases.add("where", "broadcast", {mask({3, 1}), real({4}), real({})}, [](In x) { return where(x[0], x[1], x[2]); });
  cases.add("masked_fill", "", {real({3, 4}), mask({4})}, [](In x) { return masked_fill(x[0], x[1], -7.0); });
  cases.add("masked_fill", "tensor value", {real({3, 4}), mask({3, 1}), real({})},
            [](In x) { return masked_fill(x[0], x[1], x[2]); });
  cases.add("lerp", "", {real({3, 4}), real({3, 4}), real({4}, 0, 1)}, [](In x) { return lerp(x[0], x[1], x[2]); });
  cases.add("lerp", "number", {real({3, 4}), real({3, 4})}, [](In x) { return lerp(x[0], x[1], 0.3); });
  cases.add("glu", "", {real({3, 4})}, [](In x) { return glu(x[0]); });
  cases.add("glu", "dim 0", {real({2, 3})}, [](In x) { return glu(x[0], 0); });
  cases.add("prelu", "one weight", {real({2, 3, 2}), real({1}, 0.1, 0.5)}, [](In x) { return prelu(x[0], x[1]); });
  cases.add("prelu", "channels", {real({2, 3, 2}), real({3}, 0.1, 0.5)}, [](In x) { return prelu(x[0], x[1]); });
}

}  // namespace loom::sweep
