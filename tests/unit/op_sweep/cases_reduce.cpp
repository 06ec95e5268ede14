// SPDX-License-Identifier: Apache-2.0
// Reductions, scans, order, and products of matrices.
#include "case.h"

namespace loom::sweep {

namespace {

const double inf = std::numeric_limits<double>::infinity();

using Reducer = Tensor (*)(const Tensor&, const Dims&, bool);

void add_over_dims(Cases& c, const char* op, const Reducer& reduce, bool of_nothing, Input (*draw)(const Dims&)) {
  const auto add = [&](const char* what, const Dims& shape, const Dims& dims, bool keepdim) {
    Case& made = c.add(op, what, {draw(shape)}, [=](In x) { return reduce(x[0], dims, keepdim); }).sum_of(24);
    if (op[0] == 'a') made.not_expanded("ties have no derivative");
  };
  add("all", {2, 3, 4}, {}, false);
  add("all, keepdim", {2, 3, 4}, {}, true);
  add("first", {2, 3, 4}, {0}, false);
  add("middle, keepdim", {2, 3, 4}, {1}, true);
  add("last", {2, 3, 4}, {-1}, false);
  add("two", {2, 3, 4}, {0, -1}, false);
  add("scalar", {}, {}, false);
  add("no rows", {0, 3}, {1}, false);
  if (of_nothing) add("of nothing", {0, 3}, {0}, false);
}

Input ordinary(const Dims& shape) { return real(shape, -2, 2); }
Input positive(const Dims& shape) { return real(shape, 0.4, 2); }

void add_sums(Cases& c) {
  add_over_dims(c, "sum", &loom::sum, true, ordinary);
  add_over_dims(c, "mean", &loom::mean, false, ordinary);
  add_over_dims(c, "prod", &loom::prod, true, positive);
  add_over_dims(c, "amax", &loom::amax, false, distinct);
  add_over_dims(c, "amin", &loom::amin, false, distinct);
  add_over_dims(c, "logsumexp", &loom::logsumexp, false, ordinary);
  add_over_dims(
      c, "norm", [](const Tensor& x, const Dims& d, bool k) { return norm(x, 2, d, k); }, false, positive);
  c.add("prod", "one zero", {exactly(tensor({{0.5, 0.0, 2.0}, {1.5, -1.0, 3.0}}, f64))},
        [](In x) { return prod(x[0], {1}); });
  c.add("prod", "two zeros", {exactly(tensor({0.5, 0.0, 2.0, 0.0}, f64))}, [](In x) { return prod(x[0]); });
  c.add("sum", "one element", {real({1})}, [](In x) { return sum(x[0]); });
  c.add("sum", "long", {real({1, 300})}, [](In x) { return sum(x[0] * x[0], {1}); }).sum_of(300);
  for (const double correction : {0.0, 1.0}) {
    const std::string n = correction == 0 ? "biased" : "sample";
    c.add("var", n, {real({3, 5})}, [=](In x) { return var(x[0], {1}, correction); }).sum_of(30);
    c.add("var", n + ", all", {real({3, 5})}, [=](In x) { return var(x[0], {}, correction, true); }).sum_of(30);
    c.add("std", n, {real({3, 5})}, [=](In x) { return std(x[0], {0}, correction); }).sum_of(30);
  }
  for (const double p : {1.0, 3.0, 2.5, inf})
    c.add("norm", str("p ", p), {distinct({3, 4})}, [=](In x) { return norm(x[0], p, {1}); })
        .sum_of(16)
        .not_expanded("the largest of equal elements has no derivative");
}

void add_extrema(Cases& c) {
  const char* const ties = "ties have no derivative";
  c.add("max", "", {distinct({3, 4})}, [](In x) { return max(x[0]); }).not_expanded(ties);
  c.add("min", "", {distinct({3, 4})}, [](In x) { return min(x[0]); }).not_expanded(ties);
  c.add("max", "dim", {distinct({3, 4})}, [](In x) { return max(x[0], 0).first; });
  c.add("max", "dim, keepdim", {distinct({3, 4})}, [](In x) { return max(x[0], -1, true).first; });
  c.add("min", "dim", {distinct({3, 4})}, [](In x) { return min(x[0], 1).first; });
  c.add("max", "scalar", {real({})}, [](In x) { return max(x[0], 0).first; });
  c.add("argmax", "all", {distinct({3, 4})}, [](In x) { return argmax(x[0]); }).constant_result();
  c.add("argmax", "dim, keepdim", {distinct({3, 4})}, [](In x) { return argmax(x[0], 1, true); }).constant_result();
  c.add("argmin", "all", {distinct({3, 4})}, [](In x) { return argmin(x[0]); }).constant_result();
  c.add("argmin", "dim", {distinct({3, 4})}, [](In x) { return argmin(x[0], 0); }).constant_result();
  c.add("all", "", {whole({3, 4}, 0, 5)}, [](In x) { return all(x[0], {1}); }).constant_result();
  c.add("all", "of nothing", {whole({0}, 0, 5)}, [](In x) { return all(x[0]); }).constant_result();
  c.add("any", "", {whole({3, 4}, 0, 2)}, [](In x) { return any(x[0], {0}, true); }).constant_result();
  c.add("any", "mask", {mask({3, 2})}, [](In x) { return any(x[0], {1}); }).constant_result();
}

void add_scans(Cases& c) {
  c.add("cumsum", "", {real({3, 4})}, [](In x) { return cumsum(x[0], 0); }).sum_of(4);
  c.add("cumsum", "last", {real({2, 3, 4})}, [](In x) { return cumsum(x[0], -1); }).sum_of(4);
  c.add("cumsum", "scalar", {real({})}, [](In x) { return cumsum(x[0], 0); });
  c.add("cumsum", "empty", {real({2, 0})}, [](In x) { return cumsum(x[0], 1); });
  c.add("cumprod", "", {real({3, 4}, 0.4, 2)}, [](In x) { return cumprod(x[0], 0); }).sum_of(4);
  c.add("cumprod", "zero", {exactly(tensor({{0.5, 0.0, 2.0}, {0.0, -1.0, 0.0}}, f64))},
        [](In x) { return cumprod(x[0], 1); });
  c.add("sort", "", {distinct({3, 5})}, [](In x) { return sort(x[0]).first; });
  c.add("sort", "dim 0, descending", {distinct({3, 5})}, [](In x) { return sort(x[0], 0, true).first; });
  c.add("sort", "scalar", {real({})}, [](In x) { return sort(x[0]).first; });
  c.add("argsort", "", {distinct({3, 5})}, [](In x) { return argsort(x[0]); }).constant_result();
  c.add("topk", "", {distinct({3, 5})}, [](In x) { return topk(x[0], 2).first; });
  c.add("topk", "smallest, dim 0", {distinct({4, 3})}, [](In x) { return topk(x[0], 3, 0, false).first; });
  c.add("topk", "none", {distinct({3, 5})}, [](In x) { return topk(x[0], 0).first; });
}

}  // namespace

void add_reduce_cases(Cases& cases) {
  add_sums(cases);
  add_extrema(cases);
  add_scans(cases);
}

void add_matmul_cases(Cases& c) {
  const auto product = [](In x) { return matmul(x[0], x[1]); };
  const auto add = [&](const char* what, const Dims& a, const Dims& b) {
    c.add("matmul", what, {real(a), real(b)}, product).sum_of(8);
  };
  add("", {2, 3}, {3, 4});
  add("vectors", {4}, {4});
  add("vector times matrix", {3}, {3, 2});
  add("matrix times vector", {2, 3}, {3});
  add("batch", {2, 2, 3}, {2, 3, 2});
  add("batch times matrix", {2, 2, 3}, {3, 2});
  add("matrix times batch", {2, 3}, {2, 3, 2});
  add("batches broadcast", {2, 1, 2, 3}, {3, 3, 2});
  add("vector times batch", {3}, {2, 3, 2});
  add("batch times vector", {2, 2, 3}, {3});
  add("one", {1, 1}, {1, 1});
  add("empty sum", {2, 0}, {0, 3});
  add("no rows", {0, 3}, {3, 2});
  c.add("matmul", "transposed", {real({3, 2}), real({4, 3})}, [](In x) {
     return matmul(x[0].t(), x[1].t());
   }).sum_of(4);
  c.add("matmul", "itself", {real({3, 3})}, [](In x) { return matmul(x[0], x[0]); }).sum_of(4);
  c.add("matmul", "blocks", {real({9, 17}), real({17, 10})}, product).sum_of(17).roundings(8);
  c.add("mm", "", {real({2, 3}), real({3, 2})}, [](In x) { return mm(x[0], x[1]); }).sum_of(4);
  c.add("bmm", "", {real({2, 2, 3}), real({2, 3, 2})}, [](In x) { return bmm(x[0], x[1]); }).sum_of(4);
  c.add("addmm", "", {real({2, 2}), real({2, 3}), real({3, 2})}, [](In x) {
     return addmm(x[0], x[1], x[2]);
   }).sum_of(4);
  c.add("addmm", "factors", {real({2}), real({2, 3}), real({3, 2})}, [](In x) {
     return addmm(x[0], x[1], x[2], 0.5, 2);
   }).sum_of(4);
  c.add("dot", "", {real({5}), real({5})}, [](In x) { return dot(x[0], x[1]); }).sum_of(5);
  c.add("outer", "", {real({3}), real({4})}, [](In x) { return outer(x[0], x[1]); }).sum_of(4);
  const auto line = [](In x) { return linear(x[0], x[1], x.size() > 2 ? x[2] : Tensor()); };
  c.add("linear", "", {real({3, 4}), real({2, 4}), real({2})}, line).sum_of(4);
  c.add("linear", "no bias", {real({3, 4}), real({2, 4})}, line).sum_of(4);
  c.add("linear", "batch", {real({2, 2, 3}), real({4, 3}), real({4})}, line).sum_of(4);
  c.add("linear", "vector", {real({3}), real({2, 3}), real({2})}, line).sum_of(4);
  c.add("linear", "no rows", {real({0, 3}), real({2, 3}), real({2})}, line);
  const auto contraction = [&](const char* equation, const Dims& a, const Dims& b) {
    c.add("einsum", equation, {real(a), real(b)}, [=](In x) { return einsum(equation, {x[0], x[1]}); }).sum_of(12);
  };
  contraction("bij,bjk->bik", {2, 2, 3}, {2, 3, 2});
  contraction("i,j->ij", {3}, {2});
  contraction("bhqd,bhkd->bhqk", {1, 2, 2, 3}, {1, 2, 3, 3});
  contraction("ij,j", {2, 3}, {3});
  contraction("...i,ij->...j", {2, 2, 3}, {3, 2});
  contraction("ij,kl->", {2, 2}, {2, 2});
  c.add("einsum", "one operand", {real({2, 3})}, [](In x) { return einsum("ij->j", {x[0]}); }).sum_of(4);
}

}  // namespace loom::sweep
